//! What the policy crate finds of a text, as clients see it: a plan, proofs, an explanation.
//! Pure and long: to be done beside the servers' threads.

use sunwire_api::problem::{Span, line_and_column};
use sunwire_api::{
    AssertionResult, AssertionVerdict, Diagnostic, Name, PacketChange, PacketChangeKind,
    PolicyClause, PolicyCondition, PolicyCopy, PolicyDecision, PolicyExplanation, PolicyPlan,
    PolicyTestResult, PolicyVerification, ProblemCode, ReachabilityChange,
};
use sunwire_policy::environment::Environment;
use sunwire_policy::explain::{Clause, Condition, Copied, Decision, explain};
use sunwire_policy::plan::{ChangeKind, plan};
use sunwire_policy::prove::{Proof, Verdict};
use sunwire_policy::show::show_packet;
use sunwire_policy::verify::options::Options;
use sunwire_policy::{check_claims, diagnostic, parse, resolve_text};

use crate::compile::located;
use crate::packet_json::packet_of_json;
use crate::policy_check::failing_claims;
use crate::refusal::Refusal;
use crate::state::{Source, check, invalid};

/// The text in force that a plan begins with.
pub(crate) struct Present {
    /// Revision of the text.
    pub(crate) revision: u64,
    /// The text.
    pub(crate) text: Source,
}

fn refused(findings: &[diagnostic::Diagnostic], text: &str) -> Refusal {
    invalid(located_all(findings, text))
}

/// What would change if `text` came into force as `policy`.
pub(crate) fn planned(
    policy: &Name,
    present: Option<Present>,
    text: &str,
    environment: &Environment,
    options: &Options,
) -> Result<PolicyPlan, Refusal> {
    // All that would have it refused is said first.
    let compiled = check(text, environment)?;
    let (new, _) = resolve_text(text, environment).map_err(|found| refused(&found, text))?;
    let old = present.as_ref().and_then(|present| {
        // A text that is out of force counts as none.
        let resolved = resolve_text(present.text.as_str(), environment).ok();
        resolved.map(|(resolved, _)| resolved)
    });
    let plan = plan(old.as_ref(), &new, environment, options).map_err(|limit| {
        Refusal::new(
            ProblemCode::Undecided,
            format!("the change could not be worked out: {limit}; stage the text in place of it"),
        )
    })?;
    let changes = plan.changes.iter().map(|change| PacketChange {
        kind: match change.kind {
            ChangeKind::Allowed => PacketChangeKind::Allowed,
            ChangeKind::Denied => PacketChangeKind::Denied,
            ChangeKind::Changed => PacketChangeKind::Changed,
        },
        packets: change.packets.clone(),
        example: change.example.clone(),
        before: change.before.clone(),
        after: change.after.clone(),
    });
    let reachability = plan.reachability.iter().map(|change| ReachabilityChange {
        reachable: change.reachable,
        from: change.from.clone(),
        to: change.to.clone(),
        pairs: change.pairs as u64,
    });
    Ok(PolicyPlan {
        network: compiled.network,
        from_revision: present.map(|present| present.revision),
        changes: changes.collect(),
        more: plan.more,
        reachability: reachability.collect(),
        violations: failing_claims(policy, text, environment).violations,
        warnings: compiled.warnings,
        rendered: plan.to_string(),
    })
}

/// What is known of the claims of a text.
pub(crate) fn verified(
    text: &str,
    environment: &Environment,
    options: &Options,
) -> Result<PolicyVerification, Refusal> {
    let checked =
        check_claims(text, environment, options).map_err(|found| refused(&found, text))?;
    let tests = checked.tests.iter().map(|test| PolicyTestResult {
        name: test.name.clone(),
        passed: test.passed(),
        packets: test.packets as u64,
        failures: messages(test.diagnostics(text)),
    });
    let assertions = checked.proofs.iter().map(|proof| assertion(proof, text));
    let diagnostics = checked.failures();
    Ok(PolicyVerification {
        holds: checked.holds(),
        assertions: assertions.collect(),
        tests: tests.collect(),
        diagnostics: located_all(&diagnostics, text),
    })
}

fn messages(findings: Vec<diagnostic::Diagnostic>) -> Vec<String> {
    findings.into_iter().map(|one| one.message).collect()
}

fn located_all(findings: &[diagnostic::Diagnostic], text: &str) -> Vec<Diagnostic> {
    findings.iter().map(|one| located(one, text)).collect()
}

fn assertion(proof: &Proof, text: &str) -> AssertionResult {
    let (verdict, counterexample, hops) = match &proof.verdict {
        Verdict::Holds => (AssertionVerdict::Holds, None, Vec::new()),
        Verdict::Undecided(_) => (AssertionVerdict::Undecided, None, Vec::new()),
        Verdict::Fails(failure) => (
            AssertionVerdict::Fails,
            Some(show_packet(&failure.packet)),
            failure.steps.iter().map(ToString::to_string).collect(),
        ),
    };
    let (line, column) = line_and_column(text, proof.span.start);
    AssertionResult {
        assertion: proof.text.clone(),
        line,
        column,
        span: span(proof.span),
        verdict,
        note: proof.note.clone(),
        counterexample,
        hops,
    }
}

/// Why a packet is treated as it is.
pub(crate) fn explained(
    text: &str,
    packet: &serde_json::Map<String, serde_json::Value>,
    environment: &Environment,
) -> Result<PolicyExplanation, Refusal> {
    let (policy, _) = resolve_text(text, environment).map_err(|found| refused(&found, text))?;
    let packet = packet_of_json(packet, environment)
        .map_err(|error| Refusal::new(ProblemCode::InvalidBody, format!("packet: {error}")))?;
    let (document, _) = parse(text);
    let explanation = explain(&policy, &document, environment, &packet);
    Ok(PolicyExplanation {
        packet: explanation.packet,
        decisions: explanation.decisions.into_iter().map(decision).collect(),
    })
}

fn decision(decision: Decision) -> PolicyDecision {
    let condition = |Condition {
                         clause: part,
                         holds,
                     }| PolicyCondition {
        clause: clause(part),
        holds,
    };
    let copy = |Copied { what, rewritten }| PolicyCopy { what, rewritten };
    PolicyDecision {
        at: decision.at,
        label: decision.label,
        statement: decision.statement.map(clause),
        conditions: decision.conditions.into_iter().map(condition).collect(),
        copies: decision.copies.into_iter().map(copy).collect(),
    }
}

fn clause(clause: Clause) -> PolicyClause {
    PolicyClause {
        span: span(clause.span),
        line: clause.line,
        column: clause.column,
        text: clause.text,
    }
}

fn span(span: diagnostic::Span) -> Span {
    Span {
        start: span.start,
        end: span.end,
    }
}
