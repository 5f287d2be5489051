//! Answers: resources with their `ETag`, and pages.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use sunwire_api::{Name, Page, ProblemCode, Resource};
use utoipa::IntoParams;

use crate::refusal::Refusal;

/// Resources on a page when the client does not say.
const PAGE_DEFAULT: usize = 100;
/// Resources on a page at most.
const PAGE_MAX: usize = 500;

/// A resource with its `ETag`.
pub(crate) struct Tagged<T>(pub(crate) T);

/// A resource that may be new, under this collection.
pub(crate) struct Written<T> {
    pub(crate) resource: T,
    pub(crate) created: bool,
    pub(crate) collection: &'static str,
}

impl<S: Serialize, T: Serialize> IntoResponse for Tagged<Resource<S, T>> {
    fn into_response(self) -> Response {
        let tag = format!("\"{}\"", self.0.revision);
        ([(header::ETAG, tag)], axum::Json(self.0)).into_response()
    }
}

impl<S: Serialize, T: Serialize> IntoResponse for Written<Resource<S, T>> {
    fn into_response(self) -> Response {
        if self.created {
            let location = format!("{}/{}", self.collection, self.resource.name);
            let headers = [(header::LOCATION, location)];
            (StatusCode::CREATED, headers, Tagged(self.resource)).into_response()
        } else {
            Tagged(self.resource).into_response()
        }
    }
}

/// Which page of a list.
#[derive(Clone, Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct PageQuery {
    /// `next_page_token` of the page before.
    page_token: Option<String>,
    /// Resources on the page at most: 1 to 500, 100 when absent.
    limit: Option<usize>,
}

impl PageQuery {
    /// A page of `records`, each shown by `view`.
    pub(crate) fn page<R, T>(
        &self,
        records: &BTreeMap<Name, R>,
        view: impl Fn(&Name, &R) -> Result<T, Refusal>,
    ) -> Result<Page<T>, Refusal> {
        let wrong = |detail: String| Refusal::new(ProblemCode::InvalidQuery, detail);
        let limit = self.limit.unwrap_or(PAGE_DEFAULT);
        if !(1..=PAGE_MAX).contains(&limit) {
            return Err(wrong(format!(
                "limit is {limit}: write a number from 1 to {PAGE_MAX}"
            )));
        }
        let after = match &self.page_token {
            None => None,
            Some(token) => Some(read_token(token).ok_or_else(|| {
                wrong("page_token is none that a list gave: leave it out to begin anew".to_owned())
            })?),
        };
        let mut rest = records
            .iter()
            .filter(|(name, _)| after.as_ref().is_none_or(|after| *name > after))
            .peekable();
        let mut items = Vec::new();
        let mut last = None;
        while items.len() < limit
            && let Some((name, record)) = rest.next()
        {
            items.push(view(name, record)?);
            last = Some(name);
        }
        let more = rest.peek().is_some();
        Ok(Page {
            items,
            next_page_token: last.filter(|_| more).map(write_token),
        })
    }
}

/// The token of the page after `name`: a version, then the name, in hexadecimal so that nobody
/// takes it for more than a token.
fn write_token(name: &Name) -> String {
    let mut token = String::from("1");
    for byte in name.as_str().bytes() {
        write!(token, "{byte:02x}").expect("writing to a string does not fail");
    }
    token
}

fn read_token(token: &str) -> Option<Name> {
    let digits = token.strip_prefix('1')?.as_bytes();
    let bytes: Option<Vec<u8>> = digits
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
        .collect();
    String::from_utf8(bytes?).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_together_are_the_list() {
        let names = ["a", "b", "c", "d", "e"];
        let records: BTreeMap<Name, ()> = names
            .iter()
            .map(|name| (name.parse().unwrap(), ()))
            .collect();
        let mut query = PageQuery {
            page_token: None,
            limit: Some(2),
        };
        let mut seen = Vec::new();
        loop {
            let page = query
                .page(&records, |name, ()| Ok(name.to_string()))
                .unwrap();
            seen.extend(page.items);
            query.page_token = page.next_page_token;
            if query.page_token.is_none() {
                break;
            }
        }
        assert_eq!(seen, names);
    }

    #[test]
    fn a_token_that_no_list_gave_is_refused() {
        for token in ["", "x", "1zz", "2616161", "1"] {
            assert_eq!(read_token(token), None, "{token}");
        }
    }
}
