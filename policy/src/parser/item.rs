//! Definitions: `network`, `set`, `let`, `policy`, `assert`, `test`, `import`, and a bare policy.

use super::Parser;
use crate::ast::{Expr, ExprKind, Item, ItemKind, Let, Name, Public, Value};
use crate::diagnostic::Span;
use crate::token::Token;

impl Parser<'_> {
    pub(super) fn items(&mut self) -> Vec<Item> {
        let mut items = Vec::new();
        while self.peek() != Token::End {
            let before = self.at;
            let start = self.span();
            if let Some(kind) = self.item() {
                let span = self.since(start);
                items.push(Item { kind, span });
            }
            if !self.at_item() {
                self.expected_hint(
                    "a definition",
                    Some(
                        "definitions start with `network`, `set`, `let`, `policy`, `assert`, `test` \
                          or `import`; predicates are joined by `and`, policies by `;` or `+`",
                    ),
                );
                self.skip_to_item();
            }
            if self.at == before {
                self.advance();
            }
        }
        items
    }

    fn item(&mut self) -> Option<ItemKind> {
        let start = self.span();
        match self.peek() {
            Token::Ident("network") => Some(self.network()),
            Token::Ident("set") => {
                self.advance();
                let name = self.new_name("a set");
                self.expect_sign("=");
                let value = self.value();
                Some(ItemKind::Set { name, value })
            }
            Token::Ident("policy") => {
                self.advance();
                let name = self.new_name("a policy");
                self.expect_sign("=");
                let body = self.policy();
                Some(ItemKind::Policy { name, body })
            }
            Token::Ident("let") => {
                let definition = self.definition();
                if !self.eat_word("in") {
                    return Some(ItemKind::Let(definition));
                }
                let body = Box::new(self.policy());
                let kind = ExprKind::LetIn {
                    definition: Box::new(definition),
                    body,
                };
                Some(self.main(start, kind))
            }
            Token::Ident("assert") => self.assertion().map(ItemKind::Assert),
            Token::Ident("test") => self.test_block().map(ItemKind::Test),
            Token::Ident("import") => {
                self.advance();
                let Some(path) = self.eat_text() else {
                    self.expected_hint(
                        "the path of a file in quotes",
                        Some("write `import \"common.nk\"`"),
                    );
                    return None;
                };
                Some(ItemKind::Import { path })
            }
            _ => {
                let body = self.policy();
                Some(self.main(start, body.kind))
            }
        }
    }

    /// A bare expression: the whole text is one policy, as in Frenetic.
    fn main(&self, start: Span, kind: ExprKind) -> ItemKind {
        let span = self.since(start);
        ItemKind::Policy {
            name: Name {
                text: "main".to_owned(),
                span: Span::new(start.start, start.start),
            },
            body: Expr { kind, span },
        }
    }

    fn network(&mut self) -> ItemKind {
        self.advance();
        let name = self.new_name("a network");
        if !self.eat_sign("{") {
            return ItemKind::Network {
                name,
                subnets: None,
                peers: Vec::new(),
                public: Vec::new(),
            };
        }
        let mut subnets = Vec::new();
        let mut peers = Vec::new();
        let mut public = Vec::new();
        while !self.is_sign("}") && !self.at_item() {
            match self.peek() {
                Token::Ident("subnet") => {
                    self.advance();
                    subnets.push(self.value());
                    while self.eat_sign(",") {
                        subnets.push(self.value());
                    }
                }
                Token::Ident("peer") => {
                    self.advance();
                    peers.push(self.new_name("a network"));
                    while self.eat_sign(",") {
                        peers.push(self.new_name("a network"));
                    }
                }
                Token::Ident("public") => {
                    self.advance();
                    let address = self.value();
                    self.expect_sign("->");
                    let endpoint = self.value();
                    public.push(Public { address, endpoint });
                }
                _ => {
                    self.expected("`subnet`, `peer`, `public` or `}`");
                    break;
                }
            }
            if !self.eat_sign(";") {
                break;
            }
        }
        if !self.is_sign("}") {
            self.expected("`;` or `}`");
            while !self.is_sign("}") && !self.at_item() {
                self.advance();
            }
        }
        self.eat_sign("}");
        ItemKind::Network {
            name,
            subnets: (peers.is_empty() || !subnets.is_empty()).then_some(subnets),
            peers,
            public,
        }
    }

    /// `let NAME[(params)] = …`, up to the end of the value.
    pub(super) fn definition(&mut self) -> Let {
        self.advance();
        let name = self.new_name("a definition");
        let mut params = Vec::new();
        if self.eat_sign("(") {
            while !self.is_sign(")") && !self.is_sign("=") && !self.at_item() {
                params.push(self.new_name("a parameter"));
                if !self.eat_sign(",") {
                    break;
                }
            }
            self.expect_sign(")");
        }
        self.expect_sign("=");
        let value = self.policy();
        Let {
            name,
            params,
            value,
        }
    }

    /// Skips to the next definition.
    pub(super) fn skip_to_item(&mut self) {
        while !self.at_item() {
            self.advance();
        }
    }
}

/// A value that could not be read.
pub(super) const fn no_value(span: Span) -> Value {
    Value {
        kind: crate::ast::ValueKind::Error,
        span,
    }
}
