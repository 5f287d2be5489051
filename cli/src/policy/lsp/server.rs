//! The life of a session: what is open, what is known of it, what is still to be found out.
//!
//! ```text
//! initialize -> initialized -> { requests, changes } -> shutdown -> exit
//! ```
//!
//! Every message is answered at once; findings come later, by [`Server::work`], when no message
//! waits. A request that makes no sense gets an error, a notification that makes none is ignored.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use lsp_server::{ErrorCode, Message, Notification, Request, Response};
use lsp_types::{
    CompletionOptions, DidChangeTextDocumentParams, DidCloseTextDocumentParams,
    DidOpenTextDocumentParams, LogMessageParams, MessageType, OneOf, PublishDiagnosticsParams,
    RenameOptions, ServerCapabilities, ServerInfo, TextDocumentSyncCapability,
    TextDocumentSyncKind, TextDocumentSyncOptions, TextDocumentSyncSaveOptions, Uri,
    WorkDoneProgressOptions,
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::analysis::Analysis;
use super::diagnostics;
use super::documents::Documents;
use super::names::Names;
use super::requests;

/// How far the session is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Only `initialize` is answered.
    New,
    Running,
    ShutDown,
    Ended {
        /// After `shutdown`.
        orderly: bool,
    },
}

/// What is still to be found out about a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Work {
    /// What the compiler says.
    Check,
    /// Whether assertions hold and tests pass.
    Prove,
}

/// What a request is answered with, or why there is no answer.
pub(super) type Answer = Result<Value, (ErrorCode, String)>;

/// One session.
pub(super) struct Server {
    phase: Phase,
    documents: Documents,
    names: Names,
    /// Messages that wait to be answered.
    waiting: Arc<AtomicUsize>,
    /// What is known of texts, until any of them changes.
    analyses: HashMap<String, Rc<Analysis>>,
    work: BTreeSet<(Work, String)>,
    /// What the compiler said, to be published again with what is proved.
    found: BTreeMap<String, Vec<lsp_types::Diagnostic>>,
}

impl Server {
    pub(super) fn new(names: Names, waiting: Arc<AtomicUsize>) -> Self {
        Server {
            phase: Phase::New,
            documents: Documents::default(),
            names,
            waiting,
            analyses: HashMap::new(),
            work: BTreeSet::new(),
            found: BTreeMap::new(),
        }
    }

    /// Whether the editor ended the session.
    pub(super) fn has_ended(&self) -> bool {
        matches!(self.phase, Phase::Ended { .. })
    }

    /// Whether it did so in good order.
    pub(super) fn was_shut_down(&self) -> bool {
        self.phase == Phase::Ended { orderly: true }
    }

    /// Answers a message.
    pub(super) fn handle(&mut self, message: Message) -> Vec<Message> {
        match message {
            Message::Request(request) => self.request(request),
            Message::Notification(notification) => self.notification(notification),
            // Nothing is asked of editors, so nothing is answered.
            Message::Response(_) => Vec::new(),
        }
    }

    /// Tells the editor's log about something that was no message.
    pub(super) fn malformed(&self, why: &str) -> Vec<Message> {
        vec![log(why)]
    }

    fn request(&mut self, request: Request) -> Vec<Message> {
        let mut out = Vec::new();
        let Request { id, method, params } = request;
        let answer = match (self.phase, method.as_str()) {
            (Phase::New, "initialize") => {
                self.phase = Phase::Running;
                out.extend(self.refresh());
                Ok(capabilities())
            }
            (Phase::New, _) => Err((
                ErrorCode::ServerNotInitialized,
                "the session begins with `initialize`".to_owned(),
            )),
            (Phase::Running, "shutdown") => {
                self.phase = Phase::ShutDown;
                Ok(Value::Null)
            }
            (Phase::Running, method) => self.answer(method, params),
            (Phase::ShutDown | Phase::Ended { .. }, _) => Err((
                ErrorCode::InvalidRequest,
                "the session is shut down".to_owned(),
            )),
        };
        let response = match answer {
            Ok(result) => Response::new_ok(id, result),
            Err((code, message)) => Response::new_err(id, code as i32, message),
        };
        out.insert(0, response.into());
        out
    }

    /// Answers a request about a text.
    fn answer(&mut self, method: &str, params: Value) -> Answer {
        let Some(kind) = requests::kind(method) else {
            return Err((
                ErrorCode::MethodNotFound,
                format!("`{method}` is not supported"),
            ));
        };
        let uri = &params["textDocument"]["uri"];
        let uri: Uri = serde_json::from_value(uri.clone()).map_err(|error| {
            let message = format!("`{method}` names no text: {error}");
            (ErrorCode::InvalidParams, message)
        })?;
        // What is not open, or was closed meanwhile, has nothing to say.
        match self.analysis(&uri) {
            Some(analysis) => kind(&analysis, params),
            None => Ok(Value::Null),
        }
    }

    fn notification(&mut self, notification: Notification) -> Vec<Message> {
        let Notification { method, params } = notification;
        if method == "exit" {
            let orderly = self.phase == Phase::ShutDown;
            self.phase = Phase::Ended { orderly };
            return Vec::new();
        }
        if self.phase != Phase::Running {
            return Vec::new();
        }
        match method.as_str() {
            "textDocument/didOpen" => {
                if let Some(DidOpenTextDocumentParams { text_document }) = read(params) {
                    let (uri, text) = (text_document.uri, text_document.text);
                    self.documents.open(uri, text, text_document.version);
                    self.changed();
                }
            }
            "textDocument/didChange" => {
                if let Some(DidChangeTextDocumentParams {
                    text_document,
                    content_changes,
                }) = read(params)
                {
                    let (uri, version) = (text_document.uri, text_document.version);
                    self.documents.change(&uri, version, content_changes);
                    self.changed();
                }
            }
            "textDocument/didSave" => {
                let out = self.refresh();
                self.changed();
                return out;
            }
            "textDocument/didClose" => {
                if let Some(DidCloseTextDocumentParams { text_document }) = read(params) {
                    self.documents.close(&text_document.uri);
                    self.found.remove(text_document.uri.as_str());
                    self.changed();
                    // What was found in a closed text is of no more use.
                    return vec![publish(text_document.uri, Vec::new(), None)];
                }
            }
            _ => {}
        }
        Vec::new()
    }

    /// Asks anew what names mean.
    fn refresh(&mut self) -> Vec<Message> {
        match self.names.refresh() {
            Ok(()) => Vec::new(),
            Err(error) => vec![log(&format!("what names mean is not known: {error}"))],
        }
    }

    /// Any text may import any other: all that is known is out of date.
    fn changed(&mut self) {
        self.analyses.clear();
        self.work.clear();
        let open = self.documents.all();
        self.work
            .extend(open.map(|open| (Work::Check, open.uri.as_str().to_owned())));
    }

    fn analysis(&mut self, uri: &Uri) -> Option<Rc<Analysis>> {
        if let Some(known) = self.analyses.get(uri.as_str()) {
            return Some(known.clone());
        }
        let open = self.documents.get(uri)?;
        let analysis = Rc::new(Analysis::new(open, &self.documents, &self.names));
        let key = uri.as_str().to_owned();
        self.analyses.insert(key, analysis.clone());
        Some(analysis)
    }

    /// Finds out one thing more about a text; nothing when all is known.
    pub(super) fn work(&mut self) -> Option<Vec<Message>> {
        if self.phase != Phase::Running {
            return None;
        }
        let (work, key) = self.work.pop_first()?;
        let open = key.parse().ok().and_then(|uri| self.documents.get(&uri));
        let Some((uri, version)) = open.map(|open| (open.uri.clone(), open.version)) else {
            return Some(Vec::new());
        };
        let analysis = self.analysis(&uri)?;
        match work {
            Work::Check => {
                let found = diagnostics::found(&analysis);
                if diagnostics::has_claims(&analysis) {
                    self.work.insert((Work::Prove, key.clone()));
                }
                self.found.insert(key, found.clone());
                Some(vec![publish(uri, found, Some(version))])
            }
            Work::Prove => {
                let waiting = self.waiting.clone();
                let given_up = Arc::new(move || waiting.load(Ordering::Relaxed) > 0);
                let Some(failures) = diagnostics::claims(&analysis, given_up) else {
                    // The message that came may change nothing: then it is tried again.
                    self.work.insert((Work::Prove, key));
                    return Some(Vec::new());
                };
                if failures.is_empty() {
                    return Some(Vec::new());
                }
                let mut all = self.found.get(&key).cloned().unwrap_or_default();
                all.extend(failures);
                Some(vec![publish(uri, all, Some(version))])
            }
        }
    }
}

/// The parameters of a notification; nothing when they are wrong, as nobody could be told.
fn read<T: DeserializeOwned>(params: Value) -> Option<T> {
    serde_json::from_value(params).ok()
}

fn log(message: &str) -> Message {
    let params = LogMessageParams {
        typ: MessageType::WARNING,
        message: message.to_owned(),
    };
    Notification::new("window/logMessage".to_owned(), params).into()
}

fn publish(uri: Uri, diagnostics: Vec<lsp_types::Diagnostic>, version: Option<i32>) -> Message {
    let params = PublishDiagnosticsParams {
        uri,
        diagnostics,
        version,
    };
    Notification::new("textDocument/publishDiagnostics".to_owned(), params).into()
}

/// What this server can do.
fn capabilities() -> Value {
    let sync = TextDocumentSyncOptions {
        open_close: Some(true),
        change: Some(TextDocumentSyncKind::INCREMENTAL),
        save: Some(TextDocumentSyncSaveOptions::Supported(true)),
        ..TextDocumentSyncOptions::default()
    };
    let capabilities = ServerCapabilities {
        text_document_sync: Some(TextDocumentSyncCapability::Options(sync)),
        hover_provider: Some(true.into()),
        definition_provider: Some(OneOf::Left(true)),
        references_provider: Some(OneOf::Left(true)),
        document_symbol_provider: Some(OneOf::Left(true)),
        document_formatting_provider: Some(OneOf::Left(true)),
        completion_provider: Some(CompletionOptions::default()),
        rename_provider: Some(OneOf::Right(RenameOptions {
            prepare_provider: Some(true),
            work_done_progress_options: WorkDoneProgressOptions::default(),
        })),
        ..ServerCapabilities::default()
    };
    let info = ServerInfo {
        name: "sunwire".to_owned(),
        version: Some(env!("CARGO_PKG_VERSION").to_owned()),
    };
    json!({ "capabilities": capabilities, "serverInfo": info })
}
