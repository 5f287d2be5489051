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

/// Edit distance by insertions, deletions, substitutions and swaps of neighbours, ignoring case
/// (optimal string alignment).
fn distance(left: &str, right: &str) -> usize {
    strsim::osa_distance(&left.to_lowercase(), &right.to_lowercase())
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn a_typing_mistake_finds_its_name_and_a_stranger_none() {
        let names = ["web1", "db1", "client1"];
        assert_eq!(nearest("wbe1", names.into_iter()), Some("web1"));
        assert_eq!(nearest("webb1", names.into_iter()), Some("web1"));
        assert_eq!(nearest("clinet1", names.into_iter()), Some("client1"));
        assert_eq!(nearest("b", names.into_iter()), None);
        assert_eq!(nearest("mailserver", names.into_iter()), None);
    }
}
