//! The nearest of several names, for "did you mean".

/// The candidate with the least edit distance to `name`, when it is near enough to be meant.
pub(crate) fn nearest<'a>(
    name: &str,
    candidates: impl Iterator<Item = &'a str>,
) -> Option<&'a str> {
    let length = name.chars().count();
    // Names beyond this length are no typing mistakes, and distance is quadratic in the length.
    if length > 64 {
        return None;
    }
    let allowed = (length / 3).max(1);
    candidates
        .filter(|candidate| candidate.chars().count().abs_diff(length) <= allowed)
        .map(|candidate| (distance(name, candidate), candidate))
        .filter(|(distance, candidate)| {
            *distance <= allowed && *distance < candidate.chars().count()
        })
        .min()
        .map(|(_, candidate)| candidate)
}

/// Edit distance by insertions, deletions, substitutions (Wagner and Fischer 1974), ignoring case.
fn distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.to_lowercase().chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, a) in left.to_lowercase().chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in right.iter().enumerate() {
            let substituted = diagonal + usize::from(a != *b);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[right.len()]
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn a_typing_mistake_finds_its_name_and_a_stranger_none() {
        let names = ["web1", "db1", "client1"];
        assert_eq!(nearest("wbe1", names.into_iter()), None);
        assert_eq!(nearest("webb1", names.into_iter()), Some("web1"));
        assert_eq!(nearest("clinet1", names.into_iter()), Some("client1"));
        assert_eq!(nearest("mailserver", names.into_iter()), None);
    }
}
