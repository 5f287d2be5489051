//! Requests about a text: parameters in, answers out.

use std::collections::HashMap;

use lsp_server::ErrorCode;
use lsp_types::{
    CompletionParams, CompletionResponse, DocumentSymbolResponse, Hover, HoverContents, Location,
    MarkupContent, MarkupKind, Position, PrepareRenameResponse, ReferenceParams, RenameParams,
    TextDocumentPositionParams, TextEdit, Uri, WorkspaceEdit,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::analysis::Analysis;
use super::position::Lines;
use super::server::Answer;
use super::{completion, edits, hover, symbols};

/// Answers one kind of request.
pub(super) type Kind = fn(&Analysis, Value) -> Answer;

/// What answers the requests with this method.
pub(super) fn kind(method: &str) -> Option<Kind> {
    Some(match method {
        "textDocument/hover" => hover,
        "textDocument/definition" => definition,
        "textDocument/references" => references,
        "textDocument/completion" => completion,
        "textDocument/documentSymbol" => outline,
        "textDocument/formatting" => formatting,
        "textDocument/prepareRename" => prepare_rename,
        "textDocument/rename" => rename,
        _ => return None,
    })
}

fn hover(analysis: &Analysis, params: Value) -> Answer {
    let params: TextDocumentPositionParams = read(params)?;
    let offset = offset(analysis, params.position);
    answer(hover::hover(analysis, offset).map(|(value, span)| Hover {
        contents: HoverContents::Markup(MarkupContent {
            kind: MarkupKind::Markdown,
            value,
        }),
        range: Some(lines(analysis).range(text(analysis), span)),
    }))
}

fn definition(analysis: &Analysis, params: Value) -> Answer {
    let params: TextDocumentPositionParams = read(params)?;
    answer(edits::definition(
        analysis,
        offset(analysis, params.position),
    ))
}

fn references(analysis: &Analysis, params: Value) -> Answer {
    let params: ReferenceParams = read(params)?;
    let offset = offset(analysis, params.text_document_position.position);
    let with_definition = params.context.include_declaration;
    answer(edits::references(analysis, offset, with_definition))
}

fn completion(analysis: &Analysis, params: Value) -> Answer {
    let params: CompletionParams = read(params)?;
    let offset = offset(analysis, params.text_document_position.position);
    answer(CompletionResponse::Array(completion::complete(
        analysis, offset,
    )))
}

fn outline(analysis: &Analysis, _: Value) -> Answer {
    answer(DocumentSymbolResponse::Nested(symbols::symbols(text(
        analysis,
    ))))
}

/// Formatting has one layout: the editor's wishes about tabs are not for this language.
fn formatting(analysis: &Analysis, _: Value) -> Answer {
    answer(edits::formatting(text(analysis)))
}

fn prepare_rename(analysis: &Analysis, params: Value) -> Answer {
    let params: TextDocumentPositionParams = read(params)?;
    let found = edits::renamed(analysis, offset(analysis, params.position));
    let (placeholder, span) = found.map_err(refused)?;
    answer(PrepareRenameResponse::RangeWithPlaceholder {
        range: lines(analysis).range(text(analysis), span),
        placeholder,
    })
}

fn rename(analysis: &Analysis, params: Value) -> Answer {
    let params: RenameParams = read(params)?;
    let offset = offset(analysis, params.text_document_position.position);
    let places = edits::rename(analysis, offset, &params.new_name).map_err(refused)?;
    // Two names of one URI would be one key twice; the type of the protocol wants this map.
    #[allow(
        clippy::mutable_key_type,
        reason = "a URI has no interior that changes: its lazily parsed parts do not affect it"
    )]
    let mut changes: HashMap<Uri, Vec<TextEdit>> = HashMap::new();
    for Location { uri, range } in places {
        changes.entry(uri).or_default().push(TextEdit {
            range,
            new_text: params.new_name.clone(),
        });
    }
    answer(WorkspaceEdit {
        changes: Some(changes),
        ..WorkspaceEdit::default()
    })
}

fn refused(message: String) -> (ErrorCode, String) {
    (ErrorCode::RequestFailed, message)
}

fn read<T: DeserializeOwned>(params: Value) -> Result<T, (ErrorCode, String)> {
    serde_json::from_value(params).map_err(|error| (ErrorCode::InvalidParams, error.to_string()))
}

fn answer(result: impl Serialize) -> Answer {
    serde_json::to_value(result).map_err(|error| (ErrorCode::InternalError, error.to_string()))
}

fn text(analysis: &Analysis) -> &str {
    analysis.bundle.source(0)
}

fn lines(analysis: &Analysis) -> Lines {
    Lines::new(text(analysis))
}

fn offset(analysis: &Analysis, position: Position) -> u32 {
    lines(analysis).offset(text(analysis), position)
}
