//! `sunwire policy lsp` as an editor drives it: real messages over the pipes of the real program.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use common::{Running, command};
use serde_json::{Value, json};

/// Longer than any answer takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

const SHOP: &str = "network shop { subnet 10.20.0.0/16, fd00:20::/64 }\n\
    set web = { web1, web2 }\n\
    let pg(who) = src in who and tcp dst port 5432\n\
    policy main =\n    if pg(web) then forward \"to db\"\n    else drop\n";

const TOPOLOGY: &str = r#"
[[node]]
name = "aws"
region = "aws:us-east-1"
[[workload]]
name = "web1"
node = "aws"
network = "shop"
addresses = ["10.20.0.10/16", "fd00:20::10/64"]
[[workload]]
name = "web2"
node = "aws"
network = "shop"
addresses = ["10.20.0.11/16", "fd00:20::11/64"]
"#;

/// An editor with one session.
struct Editor {
    child: Child,
    input: Option<ChildStdin>,
    messages: Receiver<Value>,
    next: i32,
    /// What came while something else was waited for.
    kept: Vec<Value>,
}

impl Editor {
    fn start(arguments: &[&str]) -> Editor {
        let mut child = command()
            .args(["policy", "lsp"])
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (sender, messages) = mpsc::channel();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || {
            loop {
                let mut length = 0;
                loop {
                    let mut line = String::new();
                    if output.read_line(&mut line).unwrap() == 0 {
                        return;
                    }
                    if line == "\r\n" {
                        break;
                    }
                    length = line
                        .strip_prefix("Content-Length: ")
                        .unwrap()
                        .trim()
                        .parse()
                        .unwrap();
                }
                let mut body = vec![0; length];
                output.read_exact(&mut body).unwrap();
                if sender.send(serde_json::from_slice(&body).unwrap()).is_err() {
                    return;
                }
            }
        });
        Editor {
            input: child.stdin.take(),
            child,
            messages,
            next: 1,
            kept: Vec::new(),
        }
    }

    /// A session that is initialised.
    fn running(arguments: &[&str]) -> Editor {
        let mut editor = Editor::start(arguments);
        let answer = editor.request("initialize", &json!({ "capabilities": {} }));
        assert_eq!(answer["result"]["capabilities"]["hoverProvider"], true);
        editor.notify("initialized", &json!({}));
        editor
    }

    fn bytes(&mut self, bytes: &[u8]) {
        let input = self.input.as_mut().unwrap();
        input.write_all(bytes).unwrap();
        input.flush().unwrap();
    }

    fn send(&mut self, message: &Value) {
        let body = message.to_string();
        self.bytes(format!("Content-Length: {}\r\n\r\n{body}", body.len()).as_bytes());
    }

    fn notify(&mut self, method: &str, params: &Value) {
        self.send(&json!({ "jsonrpc": "2.0", "method": method, "params": params }));
    }

    fn request(&mut self, method: &str, params: &Value) -> Value {
        let id = self.next;
        self.next += 1;
        self.send(&json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params }));
        self.wait(|message| message["id"] == id)
    }

    /// The next message like this.
    fn wait(&mut self, like: impl Fn(&Value) -> bool) -> Value {
        if let Some(at) = self.kept.iter().position(&like) {
            return self.kept.remove(at);
        }
        loop {
            let message = self
                .messages
                .recv_timeout(PATIENCE)
                .expect("an answer in time");
            if like(&message) {
                return message;
            }
            self.kept.push(message);
        }
    }

    fn open(&mut self, uri: &str, text: &str) {
        let document = json!({ "uri": uri, "languageId": "sunwire", "version": 1, "text": text });
        self.notify("textDocument/didOpen", &json!({ "textDocument": document }));
    }

    /// What was found in this version of a text.
    fn findings(&mut self, uri: &str, version: i32) -> Vec<Value> {
        let message = self.wait(|message| {
            message["method"] == "textDocument/publishDiagnostics"
                && message["params"]["uri"] == uri
                && message["params"]["version"] == version
        });
        message["params"]["diagnostics"].as_array().unwrap().clone()
    }

    /// A request about the place of the nth `word` in a text.
    fn at(&mut self, method: &str, uri: &str, text: &str, word: &str, nth: usize) -> Value {
        let offset = text.match_indices(word).nth(nth).unwrap().0;
        let line = text[..offset].matches('\n').count();
        let start = text[..offset].rfind('\n').map_or(0, |at| at + 1);
        let params = json!({
            "textDocument": { "uri": uri },
            "position": { "line": line, "character": offset - start + 1 },
            "context": { "includeDeclaration": true, "triggerKind": 1 },
            "newName": "renamed",
        });
        self.request(method, &params)["result"].clone()
    }

    /// Ends the session as editors do; the exit code.
    fn stop(mut self) -> i32 {
        assert_eq!(
            self.request("shutdown", &Value::Null)["result"],
            Value::Null
        );
        self.notify("exit", &Value::Null);
        self.child.wait().unwrap().code().unwrap()
    }
}

fn uri(path: &Path) -> String {
    format!("file://{}", path.display())
}

fn start(range: &Value) -> (u64, u64) {
    let start = &range["start"];
    (
        start["line"].as_u64().unwrap(),
        start["character"].as_u64().unwrap(),
    )
}

#[test]
fn an_editor_gets_findings_meanings_definitions_and_layout() {
    let directory = tempfile::tempdir().unwrap();
    let topology = directory.path().join("lab.toml");
    fs::write(&topology, TOPOLOGY).unwrap();
    let mut editor = Editor::running(&["--topology", topology.to_str().unwrap()]);
    let shop = &uri(&directory.path().join("shop.nk"));
    editor.open(shop, SHOP);
    assert_eq!(editor.findings(shop, 1), Vec::<Value>::new());

    let hover = editor.at("textDocument/hover", shop, SHOP, "web", 3);
    let shown = hover["contents"]["value"].as_str().unwrap();
    assert!(shown.contains("set web = { web1, web2 }"), "{shown}");
    assert!(
        shown.contains("2 endpoints") && shown.contains("10.20.0.11"),
        "{shown}"
    );
    for (word, meaning) in [
        ("web2", "endpoint 2 of network `shop`"),
        ("pg", "predicate"),
        ("dst port", "The destination address"),
        ("forward", "owner of the destination"),
        ("main", "policy"),
        ("shop", "VNI"),
    ] {
        let hover = editor.at("textDocument/hover", shop, SHOP, word, 0);
        let shown = hover["contents"]["value"].as_str().unwrap_or("nothing");
        assert!(shown.contains(meaning), "{word}: {shown}");
    }

    let definition = editor.at("textDocument/definition", shop, SHOP, "who", 1);
    assert_eq!(definition["uri"], *shop);
    assert_eq!(start(&definition["range"]), (2, 7));
    let definition = editor.at("textDocument/definition", shop, SHOP, "pg", 1);
    assert_eq!(start(&definition["range"]), (2, 4));
    let references = editor.at("textDocument/references", shop, SHOP, "pg", 0);
    assert_eq!(references.as_array().unwrap().len(), 2);

    let rename = editor.at("textDocument/rename", shop, SHOP, "who", 0);
    let edits = rename["changes"][shop].as_array().unwrap();
    assert_eq!(edits.len(), 2);
    assert!(edits.iter().all(|edit| edit["newText"] == "renamed"));

    let outline = editor.request(
        "textDocument/documentSymbol",
        &json!({ "textDocument": { "uri": shop } }),
    );
    let outline = outline["result"].as_array().unwrap().clone();
    let names: Vec<&str> = outline
        .iter()
        .map(|s| s["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["shop", "web", "pg", "main"]);

    let completion = editor.at("textDocument/completion", shop, SHOP, "web)", 0);
    let labels: Vec<&str> = completion
        .as_array()
        .unwrap()
        .iter()
        .map(|item| item["label"].as_str().unwrap())
        .collect();
    for label in [
        "web",
        "web1",
        "shop",
        "pg",
        "tcpDstPort",
        "balance",
        "internet",
    ] {
        assert!(labels.contains(&label), "{label}");
    }

    // The editor joins two lines badly; formatting takes them apart again.
    let change = json!({
        "textDocument": { "uri": shop, "version": 2 },
        "contentChanges": [{
            "range": { "start": { "line": 1, "character": 0 }, "end": { "line": 1, "character": 3 } },
            "text": "set   ",
        }],
    });
    editor.notify("textDocument/didChange", &change);
    assert_eq!(editor.findings(shop, 2), Vec::<Value>::new());
    let format = json!({
        "textDocument": { "uri": shop }, "options": { "tabSize": 8, "insertSpaces": false },
    });
    let edits = editor.request("textDocument/formatting", &format)["result"].clone();
    assert_eq!(edits.as_array().unwrap().len(), 1, "{edits}");
    assert_eq!(edits[0]["newText"], "set web = { web1, web2 }\n");
    assert_eq!(start(&edits[0]["range"]), (1, 0));
    assert_eq!(editor.stop(), 0);
}

#[test]
fn mistakes_have_codes_hints_and_related_places() {
    let mut editor = Editor::running(&[]);
    let uri = "file:///nowhere/wrong.nk";
    let text = "set web = { a }\nset web = { b }\npolicy main = tcpDstPort = 70000 + wbe\n";
    editor.open(uri, text);
    let found = editor.findings(uri, 1);
    let by_code = |code: &str| {
        let mut found = found.iter().filter(|found| found["code"] == code);
        found
            .next()
            .unwrap_or_else(|| panic!("{code} in {found:#?}"))
            .clone()
    };
    let twice = by_code("SW0302");
    assert_eq!(
        (twice["severity"].as_u64(), start(&twice["range"])),
        (Some(1), (1, 4))
    );
    let related = &twice["relatedInformation"][0];
    assert_eq!(start(&related["location"]["range"]), (0, 4));
    let range = by_code("SW0306");
    assert!(
        range["message"].as_str().unwrap().contains("hint: "),
        "{range}"
    );
    let unknown = by_code("SW0301");
    assert!(
        unknown["message"].as_str().unwrap().contains("`wbe`"),
        "{unknown}"
    );

    // What names mean is assumed, and hinted at, once for each name.
    let hints: Vec<&Value> = found
        .iter()
        .filter(|found| found["severity"] == 4)
        .collect();
    assert_eq!(hints.len(), 2, "{hints:#?}");
    assert_eq!(editor.stop(), 0);
}

#[test]
fn assertions_and_tests_that_fail_are_findings_with_a_packet() {
    let mut editor = Editor::running(&[]);
    let uri = "file:///nowhere/claims.nk";
    let text = "network n { subnet 10.0.0.0/24 }\nset a = { a1 }\nset b = { b1 }\n\
        policy main = if src in a then forward else drop\n\
        assert isolated(a, b)\ntest \"t\" { from a1 to b1 tcp 22 : drop }\n";
    editor.open(uri, text);
    let claimed = editor.wait(|message| {
        let found = message["params"]["diagnostics"].as_array();
        found.is_some_and(|found| found.iter().any(|f| f["severity"] == 1))
    });
    let found = claimed["params"]["diagnostics"].as_array().unwrap();
    let lines: Vec<u64> = found
        .iter()
        .filter(|found| found["severity"] == 1)
        .map(|found| start(&found["range"]).0)
        .collect();
    assert_eq!(lines, [4, 5], "{found:#?}");
    assert_eq!(editor.stop(), 0);
}

#[test]
fn imported_files_are_read_from_the_editor_or_else_from_disk() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    fs::write(path("sets.nk"), "set web = { web1 }\n").unwrap();
    let main = "import \"sets.nk\"\npolicy main = if src in web then forward else drop\n";
    let mut editor = Editor::running(&[]);
    let (main_uri, sets_uri) = (uri(&path("main.nk")), uri(&path("sets.nk")));
    editor.open(&main_uri, main);
    let found = editor.findings(&main_uri, 1);
    assert!(
        found.iter().all(|found| found["severity"] == 4),
        "{found:#?}"
    );
    let definition = editor.at("textDocument/definition", &main_uri, main, "web", 0);
    assert_eq!(
        (definition["uri"].as_str(), start(&definition["range"])),
        (Some(&*sets_uri), (0, 4))
    );

    // So does the import itself.
    let definition = editor.at("textDocument/definition", &main_uri, main, "sets.nk", 0);
    assert_eq!(
        (definition["uri"].as_str(), start(&definition["range"])),
        (Some(&*sets_uri), (0, 0))
    );

    // As it is in the editor, not saved, the file holds a mistake: it shows at the import.
    editor.open(&sets_uri, "set web = { web1, 10.0.0.300 }\n");
    let found = editor.findings(&main_uri, 1);
    let wrong = found
        .iter()
        .find(|found| found["code"] == "SW0104")
        .unwrap();
    assert_eq!(start(&wrong["range"]), (0, 0));
    let related = &wrong["relatedInformation"][0]["location"];
    assert_eq!(
        (related["uri"].as_str(), start(&related["range"])),
        (Some(&*sets_uri), (0, 18))
    );
    // In the imported text itself, that there is no policy is no mistake.
    let found = editor.findings(&sets_uri, 1);
    let errors = found.iter().filter(|found| found["severity"] == 1);
    assert_eq!(errors.count(), 1, "{found:#?}");
    assert_eq!(editor.stop(), 0);
}

#[test]
fn names_mean_what_the_controller_says_as_of_the_last_save() {
    let directory = tempfile::tempdir().unwrap();
    let controller = Running::start(directory.path());
    let text = "network shop\npolicy main = if src in shop then forward else drop\n";
    let uri = "file:///nowhere/shop.nk";
    let mut editor = Editor::running(&["--server", &controller.server()]);
    editor.open(uri, text);
    let found = editor.findings(uri, 1);
    assert_eq!(found[0]["code"], "SW0303", "{found:#?}");

    let ran = controller.ask(&["network", "create", "shop", "--subnet", "10.20.0.0/16"]);
    assert_eq!(ran.code, 0, "{ran:#?}");
    let saved = json!({ "textDocument": { "uri": uri } });
    editor.notify("textDocument/didSave", &saved);
    assert_eq!(editor.findings(uri, 1), Vec::<Value>::new());
    let hover = editor.at("textDocument/hover", uri, text, "shop", 1);
    let shown = hover["contents"]["value"].as_str().unwrap();
    assert!(shown.contains("10.20.0.0/16"), "{shown}");

    // While the controller is away, what it said last holds.
    drop(controller);
    editor.notify("textDocument/didSave", &saved);
    editor.wait(|message| message["method"] == "window/logMessage");
    assert_eq!(editor.findings(uri, 1), Vec::<Value>::new());
    assert_eq!(editor.stop(), 0);
}

#[test]
fn what_makes_no_sense_is_answered_or_ignored_and_never_the_end() {
    let mut editor = Editor::start(&[]);
    let early = editor.request("textDocument/hover", &json!({}));
    assert_eq!(early["error"]["code"], -32002);
    editor.request("initialize", &json!({ "capabilities": {} }));

    editor.bytes(b"Content-Length: 7\r\n\r\n{\"id\": ");
    editor.wait(|message| message["method"] == "window/logMessage");
    editor.bytes(b"no header at all\r\n\r\n");
    editor.wait(|message| message["method"] == "window/logMessage");
    editor.bytes("Content-Length: 9\r\n\r\n\"§§§\u{0}\"".as_bytes());
    editor.wait(|message| message["method"] == "window/logMessage");

    for (method, params, code) in [
        ("textDocument/unheardOf", json!({}), -32601),
        ("textDocument/hover", json!({}), -32602),
        ("textDocument/hover", json!([1, 2]), -32602),
        ("initialize", json!({}), -32601),
    ] {
        let answer = editor.request(method, &params);
        assert_eq!(answer["error"]["code"], code, "{method}: {answer}");
    }
    for method in [
        "textDocument/didOpen",
        "textDocument/didChange",
        "$/cancelRequest",
        "x",
    ] {
        editor.notify(method, &json!({ "textDocument": 7 }));
    }
    // A text that is not open has no meanings.
    let uri = "untitled:Untitled-1";
    let nothing = editor.at("textDocument/hover", uri, "x", "x", 0);
    assert_eq!(nothing, Value::Null);

    // Places outside of the text, and texts that are no policies.
    editor.open(uri, "policy main = forward -- ä𝄞");
    for (line, character) in [
        (0, 4_000_000_000),
        (4_000_000_000, 0),
        (0, 26),
        (0_u64, 27_u64),
    ] {
        let params = json!({
            "textDocument": { "uri": uri }, "position": { "line": line, "character": character },
        });
        assert!(
            editor
                .request("textDocument/hover", &params)
                .get("error")
                .is_none()
        );
        assert!(
            editor
                .request("textDocument/completion", &params)
                .get("error")
                .is_none()
        );
    }
    let hover = editor.at(
        "textDocument/hover",
        uri,
        "policy main = forward",
        "forward",
        0,
    );
    assert!(
        hover["contents"]["value"]
            .as_str()
            .unwrap()
            .contains("forward")
    );
    let rename = json!({
        "textDocument": { "uri": uri }, "position": { "line": 0, "character": 8 }, "newName": "drop",
    });
    let refused = editor.request("textDocument/rename", &rename);
    assert_eq!(refused["error"]["code"], -32803, "{refused}");
    editor.notify(
        "textDocument/didClose",
        &json!({ "textDocument": { "uri": uri } }),
    );
    assert_eq!(editor.stop(), 0);
}

#[test]
fn an_editor_that_goes_away_ends_the_session() {
    let mut editor = Editor::running(&[]);
    drop(editor.input.take());
    assert_eq!(editor.child.wait().unwrap().code(), Some(1));

    let mut editor = Editor::running(&[]);
    editor.notify("exit", &Value::Null);
    assert_eq!(editor.child.wait().unwrap().code(), Some(1));
}
