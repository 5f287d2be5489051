//! What is wrong with a policy, and where: located messages with a stable code, a caret and a hint.
//!
//! Every stage reports through one sink, which turns byte offsets into lines and columns once, so a
//! [`Diagnostic`] is complete by itself and can cross a process boundary.

use std::fmt;
use std::sync::Arc;

use serde::Serialize;

/// A range of bytes of the source text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize)]
pub struct Span {
    /// First byte.
    pub start: u32,
    /// One past the last byte.
    pub end: u32,
}

impl Span {
    /// The range from `start` to `end`.
    #[must_use]
    pub const fn new(start: u32, end: u32) -> Self {
        Span { start, end }
    }

    /// The smallest range that covers both.
    #[must_use]
    pub fn to(self, other: Span) -> Span {
        Span {
            start: self.start.min(other.start),
            end: self.end.max(other.end),
        }
    }
}

/// Whether a diagnostic stops the compilation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The policy is refused.
    Error,
    /// The policy means something, but perhaps not what its author meant.
    Warning,
}

/// Declares the codes once: name, number, severity, and what to do when nothing better is known.
macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $text:literal $severity:ident $hint:literal),* $(,)?) => {
        /// What kind of mistake a diagnostic reports; the numbers are stable.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Code { $($(#[$doc])* $name),* }

        impl Code {
            /// Every code, ascending.
            pub const ALL: &'static [Code] = &[$(Code::$name),*];

            /// The stable code, such as `SW0301`.
            #[must_use]
            pub const fn text(self) -> &'static str {
                match self { $(Code::$name => $text),* }
            }

            /// What to do about a mistake of this kind, for a diagnostic that knows nothing better.
            #[must_use]
            pub const fn hint(self) -> &'static str {
                match self { $(Code::$name => $hint),* }
            }

            /// Whether it is an error.
            #[must_use]
            pub const fn severity(self) -> Severity {
                match self { $(Code::$name => Severity::$severity),* }
            }
        }
    };
}

codes! {
    /// A character that begins no token.
    UnexpectedCharacter = "SW0101" Error
        "names hold letters, digits, `_` and single hyphens; labels stand in double quotes",
    /// A comment that is not closed.
    UnterminatedComment = "SW0102" Error
        "close it with `*)`; comments nest",
    /// A string that is not closed on its line.
    UnterminatedText = "SW0103" Error
        "close it with `\"` on the same line",
    /// A number, address, prefix or MAC address that is none.
    MalformedValue = "SW0104" Error
        "values are numbers (`80`, `0x800`), addresses, prefixes (`10.0.0.0/8`), ranges (`80-90`) or MAC addresses",
    /// The source is larger than the limit.
    SourceTooLarge = "SW0105" Error
        "select endpoints by `labels(…)` in place of listing them",
    /// A token where another was expected.
    UnexpectedToken = "SW0201" Error
        "policies are `forward`, `drop`, `FIELD := v`, `filter p`, `if p then q else r`, joined by `;` and `+`",
    /// Nesting beyond the limit.
    NestedTooDeeply = "SW0202" Error
        "give inner parts a name with `let`",
    /// An `if` without `else`.
    MissingElse = "SW0203" Error
        "add `else drop`, or `else id` to let the packet go on as it is",
    /// A reserved word used as a name.
    ReservedWord = "SW0204" Error
        "choose another name, or quote it where an endpoint is meant",
    /// More errors than are shown.
    TooManyErrors = "SW0205" Error
        "mend the first ones and check again",
    /// A name that nothing has.
    UnknownName = "SW0301" Error
        "define it with `set` or `let` before it is used, or create an endpoint of that name",
    /// A name that is already taken.
    DuplicateName = "SW0302" Error
        "give one of the two another name",
    /// The network of the policy is not known, or not named.
    UnknownNetwork = "SW0303" Error
        "begin with `network NAME`, a network that the controller has",
    /// The `network` block contradicts the network as it is.
    NetworkDiffers = "SW0304" Error
        "write the network as it is, or only name it: `network NAME`",
    /// A policy where a predicate is needed, or a value of the wrong kind.
    WrongKind = "SW0305" Error
        "a predicate tests (`src in web`), a policy acts (`forward`), and `filter p` makes a policy of a predicate",
    /// A value that does not fit its field.
    ValueOutOfRange = "SW0306" Error
        "the user guide lists what each field can hold",
    /// A definition used with the wrong number of arguments.
    WrongArguments = "SW0307" Error
        "give one argument for each parameter of the definition",
    /// The document holds no policy.
    NoPolicy = "SW0308" Error
        "add `policy main = …`",
    /// Definitions expand beyond the limit.
    ExpandsTooFar = "SW0309" Error
        "nest definitions with parameters less deeply",
    /// Packets of others sent to an endpoint that does not take them.
    NotTransparent = "SW0310" Error
        "label the endpoint `transparent=true` when it forwards what it is sent",
    /// A part of the language that this release does not have.
    NotSupported = "SW0401" Error
        "leave it out; the user guide lists what there is",
    /// A field that no packet can be rewritten in.
    NotWritable = "SW0402" Error
        "MAC addresses, IPv4 addresses, ports and DSCP can be rewritten",
    /// More copies than a verdict can hold.
    TooManyCopies = "SW0501" Error
        "let fewer arms of `+` apply to one packet",
    /// Tables deeper than the walk.
    TablesTooDeep = "SW0502" Error
        "test fewer different fields of one packet",
    /// Tables larger than their capacity.
    TablesTooLarge = "SW0503" Error
        "use prefixes and sets in place of many single values",
    /// Compiling takes more steps than the limit.
    CompilingTooLong = "SW0504" Error
        "take apart stars and unions that rewrite many fields",
    /// More names to count under than a verdict can hold.
    TooManyCounts = "SW0505" Error
        "let fewer statements count one packet",
    /// Decisions that the node a packet is for could not make again.
    NotJudgeable = "SW0506" Error
        "leave it out, or let the network's entry nodes decide alone: `enforce = \"entry\"`",
    /// A token of an imported program where another was expected.
    ForeignToken = "SW0601" Error
        "the user guide shows the syntax of both imported languages",
    /// A name that an imported program does not define.
    ForeignName = "SW0602" Error
        "define it before it is used, or import the file that does",
    /// A number where a program is needed, a program where a predicate is needed, or the like.
    ForeignKind = "SW0603" Error
        "tests combined by union, sequence and negation are predicates; assignments, `dup` and stars are not",
    /// A value of an imported program that its field cannot hold.
    ForeignValue = "SW0604" Error
        "write a value that the field can hold",
    /// Nesting of an imported program beyond the limit.
    ForeignNesting = "SW0605" Error
        "give inner parts a name, or remove parentheses that change nothing",
    /// An imported program larger than a limit, as it is written or as it expands.
    ForeignTooLarge = "SW0606" Error
        "split the program, or shorten its loops and repeated definitions",
    /// A construct of the imported language that has no meaning here.
    ForeignConstruct = "SW0607" Error
        "leave it out; the user guide lists what is imported",
    /// A file that an imported program names cannot be read.
    ImportNotFound = "SW0608" Error
        "paths are relative to the file that names them",
    /// A file that imports itself.
    ImportCycle = "SW0609" Error
        "move what both files need into a third one",
    /// An assertion that does not hold.
    AssertionFails = "SW0701" Error
        "mend the policy, or say with `where` which packets the assertion is about",
    /// A test that fails.
    TestFails = "SW0702" Error
        "mend the policy, or the test",
    /// The compiler made tables that do something else than the policy says.
    TablesWrong = "SW0703" Error
        "this is a mistake of the compiler: nothing was changed; please report the policy",
    /// An arm after `+` is not under the leading `filter`.
    EscapesFilter = "SW0901" Warning
        "put the arms in parentheses: `filter p; (q + r)`",
    /// A prefix with bits set behind its length.
    HostBits = "SW0902" Warning
        "write the prefix's first address",
    /// `port` is tested after `forward`.
    PortAfterForward = "SW0903" Warning
        "test `port` before `forward`",
}

impl Serialize for Code {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.text())
    }
}

/// One located message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Diagnostic {
    /// Kind of mistake.
    pub code: Code,
    /// Whether it stops the compilation.
    pub severity: Severity,
    /// What is wrong, in one sentence without a final stop.
    pub message: String,
    /// Where, in bytes.
    pub span: Span,
    /// Line of the first byte, from 1.
    pub line: u32,
    /// Column of the first byte in characters, from 1.
    pub column: u32,
    /// Other places that matter, each with what it has to do with the mistake.
    pub labels: Vec<(Span, String)>,
    /// What to do about it.
    pub hint: Option<String>,
}

impl Diagnostic {
    /// A diagnostic without further labels and with its code's hint, located in `source`.
    #[must_use]
    pub fn new(source: &str, code: Code, span: Span, message: impl Into<String>) -> Self {
        let (line, column) = position(source, span.start);
        Diagnostic {
            code,
            severity: code.severity(),
            message: message.into(),
            span,
            line,
            column,
            labels: Vec::new(),
            hint: Some(code.hint().to_owned()),
        }
    }

    /// Whether it stops the compilation.
    #[must_use]
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }

    /// Gives a hint better than the code's.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Adds another place.
    #[must_use]
    pub fn with_label(mut self, span: Span, text: impl Into<String>) -> Self {
        self.labels.push((span, text.into()));
        self
    }

    /// The message as plain text with the line it speaks of, a caret and the hint.
    #[must_use]
    pub fn render(&self, source: &str) -> String {
        let mut out = format!("{}[{}]: {}\n", self.kind(), self.code.text(), self.message);
        out.push_str(&excerpt(source, self.span, None));
        for (span, text) in &self.labels {
            out.push_str(&excerpt(source, *span, Some(text)));
        }
        if let Some(hint) = &self.hint {
            out.push_str("  = hint: ");
            out.push_str(hint);
            out.push('\n');
        }
        out
    }

    fn kind(&self) -> &'static str {
        match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        }
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}:{}: {}[{}]: {}",
            self.line,
            self.column,
            self.kind(),
            self.code.text(),
            self.message
        )?;
        match &self.hint {
            Some(hint) => write!(f, " ({hint})"),
            None => Ok(()),
        }
    }
}

/// Renders several diagnostics, one after the other, with an empty line between.
#[must_use]
pub fn render_all(diagnostics: &[Diagnostic], source: &str) -> String {
    let rendered: Vec<String> = diagnostics.iter().map(|d| d.render(source)).collect();
    rendered.join("\n")
}

/// Longest part of a source line that an excerpt shows, in characters.
const EXCERPT_CHARACTERS: usize = 120;

/// The line of `span` with carets under it.
fn excerpt(source: &str, span: Span, label: Option<&str>) -> String {
    let (line, column) = position(source, span.start);
    let text: Vec<char> = source
        .lines()
        .nth(line as usize - 1)
        .unwrap_or("")
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    let at = (column as usize - 1).min(text.len());
    let from = at.saturating_sub(EXCERPT_CHARACTERS / 2);
    let shown: String = text.iter().skip(from).take(EXCERPT_CHARACTERS).collect();
    let covered = source
        .get(span.start as usize..span.end as usize)
        .map_or(1, |s| s.lines().next().unwrap_or("").chars().count());
    let room = shown.chars().count().saturating_sub(at - from);
    let carets = covered.clamp(1, room.max(1));
    let gutter = line.to_string().len();
    format!(
        "{blank} --> {line}:{column}\n{blank} |\n{line} | {shown}\n{blank} | {pad}{marks}{label}\n",
        blank = " ".repeat(gutter),
        pad = " ".repeat(at - from),
        marks = "^".repeat(carets),
        label = label.map(|l| format!(" {l}")).unwrap_or_default(),
    )
}

/// Line and column, both from 1, of a byte offset.
#[must_use]
pub fn position(source: &str, offset: u32) -> (u32, u32) {
    let mut end = (offset as usize).min(source.len());
    while !source.is_char_boundary(end) {
        end -= 1;
    }
    let before = &source[..end];
    let line = before.matches('\n').count() as u32 + 1;
    let start = before.rfind('\n').map_or(0, |at| at + 1);
    (line, before[start..].chars().count() as u32 + 1)
}

/// Finds lines without reading the source again.
#[derive(Clone, Debug)]
pub(crate) struct Lines {
    starts: Vec<u32>,
}

impl Lines {
    pub(crate) fn new(source: &str) -> Self {
        let breaks = source.bytes().enumerate().filter(|(_, b)| *b == b'\n');
        Lines {
            starts: breaks.map(|(at, _)| at as u32 + 1).collect(),
        }
    }

    /// Line of a byte, from 1.
    pub(crate) fn line(&self, offset: u32) -> usize {
        self.starts.partition_point(|start| *start <= offset) + 1
    }
}

/// Diagnostics kept of one source; further ones are counted, not kept.
const KEPT: usize = 100;

/// Collects the diagnostics of one source text.
#[derive(Clone, Debug)]
pub(crate) struct Sink {
    source: Arc<str>,
    diagnostics: Vec<Diagnostic>,
    errors: usize,
}

impl Sink {
    pub(crate) fn new(source: Arc<str>) -> Self {
        Sink {
            source,
            diagnostics: Vec::new(),
            errors: 0,
        }
    }

    /// Reports; the returned diagnostic may be given labels and a hint.
    pub(crate) fn report(
        &mut self,
        code: Code,
        span: Span,
        message: impl Into<String>,
    ) -> Report<'_> {
        if code.severity() == Severity::Error {
            self.errors += 1;
        }
        // The limit also bounds the time spent on locating: each location reads the source.
        if self.diagnostics.len() < KEPT {
            let diagnostic = Diagnostic::new(&self.source, code, span, message);
            self.diagnostics.push(diagnostic);
            Report(self.diagnostics.last_mut())
        } else {
            if self.diagnostics.len() == KEPT {
                self.diagnostics.push(Diagnostic::new(
                    &self.source,
                    Code::TooManyErrors,
                    span,
                    "too many mistakes; from here on they are not shown",
                ));
            }
            Report(None)
        }
    }

    /// Whether the next diagnostic will be kept. What only makes it better, such as looking for a
    /// name that was meant, need not be done otherwise: that would be quadratic in the mistakes.
    pub(crate) fn keeps_more(&self) -> bool {
        self.diagnostics.len() < KEPT
    }

    pub(crate) fn has_errors(&self) -> bool {
        self.errors > 0
    }

    /// Errors so far, also those beyond the limit.
    pub(crate) fn error_count(&self) -> usize {
        self.errors
    }

    /// Counts an error that is reported elsewhere.
    pub(crate) fn count_error(&mut self) {
        self.errors += 1;
    }

    pub(crate) fn finish(mut self) -> Vec<Diagnostic> {
        self.diagnostics.sort_by_key(|d| (d.span.start, d.code));
        // A definition with parameters is read once for each use.
        self.diagnostics.dedup();
        self.diagnostics
    }
}

/// A diagnostic just reported, unless it was beyond the limit.
pub(crate) struct Report<'a>(Option<&'a mut Diagnostic>);

impl Report<'_> {
    pub(crate) fn hint(self, hint: impl Into<String>) -> Self {
        if let Some(diagnostic) = self.0 {
            diagnostic.hint = Some(hint.into());
            return Report(Some(diagnostic));
        }
        self
    }

    pub(crate) fn label(self, span: Span, text: impl Into<String>) -> Self {
        if let Some(diagnostic) = self.0 {
            diagnostic.labels.push((span, text.into()));
            return Report(Some(diagnostic));
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_unique_and_ascending() {
        for pair in Code::ALL.windows(2) {
            assert!(pair[0].text() < pair[1].text());
        }
    }

    #[test]
    fn every_diagnostic_says_what_to_do() {
        for code in Code::ALL {
            let diagnostic = Diagnostic::new("x", *code, Span::new(0, 1), "x");
            assert!(
                diagnostic.hint.is_some_and(|hint| !hint.is_empty()),
                "{code:?}"
            );
        }
    }

    #[test]
    fn the_caret_stands_under_the_span() {
        let source = "set ä = {\n  wëb }\n";
        let start = source.find("wëb").unwrap() as u32;
        let diagnostic = Diagnostic::new(
            source,
            Code::UnknownName,
            Span::new(start, start + 4),
            "unknown name `wëb`",
        )
        .with_hint("did you mean `web`?");
        assert_eq!(
            diagnostic.render(source),
            "error[SW0301]: unknown name `wëb`\n  --> 2:3\n  |\n2 |   wëb }\n  |   ^^^\n  = hint: did you mean `web`?\n"
        );
    }

    #[test]
    fn a_span_at_or_behind_the_end_still_renders() {
        for source in ["", "a", "a\n", "ä"] {
            for end in 0..5 {
                let _ = Diagnostic::new(source, Code::NoPolicy, Span::new(end, end + 3), "x")
                    .render(source);
            }
        }
    }

    #[test]
    fn a_very_long_line_is_cut() {
        let source = "x".repeat(100_000);
        let text = Diagnostic::new(&source, Code::NoPolicy, Span::new(50_000, 100_000), "x")
            .render(&source);
        assert!(text.len() < 1000);
    }
}
