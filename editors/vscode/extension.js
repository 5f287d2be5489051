// Starts `sunwire policy lsp` for policies, and ends it with the editor.

const { workspace } = require("vscode");
const { LanguageClient } = require("vscode-languageclient/node");

let client;

exports.activate = async () => {
  const settings = workspace.getConfiguration("sunwire");
  const server = {
    command: settings.get("command"),
    args: ["policy", "lsp", ...settings.get("arguments")],
  };
  const documents = { documentSelector: [{ language: "sunwire" }] };
  client = new LanguageClient("sunwire", "Sunwire policies", server, documents);
  await client.start();
};

exports.deactivate = () => client?.stop();
