//! What a request says, before it is known to whom.

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Uri,
    header::{ACCEPT, CONTENT_TYPE, Entry},
};
use roundsman_protocol::ServiceName;
use serde::Serialize;
use url::Url;

use super::{Error, SUFFIX, body::Body};

/// A request to nobody in particular.
#[derive(Debug)]
pub(super) struct Draft {
    method: Method,
    url: Url,
    headers: HeaderMap,
    body: Body,
}

// === impl Draft ===

impl Draft {
    pub(super) fn new(service: &ServiceName, method: Method, path: &str) -> Result<Self, Error> {
        if !path.starts_with('/') {
            return Err(Error::Invalid(format!("a path begins with a slash, got `{path}`")));
        }
        // What may not stand in a path as it is gets its percent signs here.
        let url = Url::parse(&format!("http://{service}{SUFFIX}{path}")).map_err(|error| unsendable(&error))?;
        Ok(Self { method, url, headers: HeaderMap::new(), body: Body::default() })
    }

    pub(super) fn header<K, V>(&mut self, name: K, value: V) -> Result<(), Error>
    where
        HeaderName: TryFrom<K>,
        <HeaderName as TryFrom<K>>::Error: Into<http::Error>,
        HeaderValue: TryFrom<V>,
        <HeaderValue as TryFrom<V>>::Error: Into<http::Error>,
    {
        let name = HeaderName::try_from(name).map_err(|error| unsendable(&error.into()))?;
        let value = HeaderValue::try_from(value).map_err(|error| unsendable(&error.into()))?;
        self.headers.append(name, value);
        Ok(())
    }

    pub(super) fn headers(&mut self, headers: HeaderMap) {
        let mut last = None;
        for (name, value) in headers {
            match (name, &last) {
                // The first of its name takes the place of what was there, others join it.
                (Some(name), _) => {
                    self.headers.insert(name.clone(), value);
                    last = Some(name);
                }
                (None, Some(name)) => drop(self.headers.append(name, value)),
                (None, None) => {}
            }
        }
    }

    pub(super) fn query(&mut self, query: &(impl Serialize + ?Sized)) -> Result<(), Error> {
        let mut pairs = self.url.query_pairs_mut();
        query.serialize(serde_urlencoded::Serializer::new(&mut pairs)).map_err(|error| unsendable(&error))?;
        drop(pairs);
        if self.url.query() == Some("") {
            self.url.set_query(None);
        }
        Ok(())
    }

    pub(super) fn body(&mut self, body: Body) {
        self.body = body;
    }

    pub(super) fn json(&mut self, body: &(impl Serialize + ?Sized)) -> Result<(), Error> {
        let json = serde_json::to_vec(body).map_err(|error| unsendable(&error))?;
        self.body = Bytes::from(json).into();
        if let Entry::Vacant(vacant) = self.headers.entry(CONTENT_TYPE) {
            vacant.insert(HeaderValue::from_static("application/json"));
        }
        Ok(())
    }

    /// What is sent, once it is pointed at somebody.
    pub(super) fn finish(self) -> Result<http::Request<Body>, Error> {
        let Self { method, url, mut headers, body } = self;
        if let Entry::Vacant(vacant) = headers.entry(ACCEPT) {
            vacant.insert(HeaderValue::from_static("*/*"));
        }
        let target = &url[url::Position::BeforePath..url::Position::AfterQuery];
        let mut request = http::Request::new(body);
        *request.uri_mut() = Uri::try_from(target).map_err(|error| unsendable(&error))?;
        (*request.method_mut(), *request.headers_mut()) = (method, headers);
        Ok(request)
    }
}

fn unsendable(error: &(dyn std::error::Error + 'static)) -> Error {
    Error::invalid("this request cannot be sent", error)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draft(path: &str) -> Draft {
        Draft::new(&"product".parse().unwrap(), Method::GET, path).unwrap()
    }

    #[test]
    fn paths_go_out_as_a_browser_would_send_them() {
        for (said, sent) in [
            ("/", "/"),
            ("//a", "//a"),
            ("/a b", "/a%20b"),
            ("/a%20b", "/a%20b"),
            ("/ä?ö=ü#here", "/%C3%A4?%C3%B6=%C3%BC"),
            ("/a/../b/./c", "/b/c"),
            ("/@b:1", "/@b:1"),
            ("/a?", "/a?"),
            ("/{\"<>`^}|", "/%7B%22%3C%3E%60^%7D|"),
        ] {
            let sent = sent.to_owned();
            match draft(said).finish() {
                Ok(request) => assert_eq!(request.uri().to_string(), sent, "{said}"),
                Err(error) => panic!("{said}: {error}"),
            }
        }
        assert!(Draft::new(&"product".parse().unwrap(), Method::GET, "a").is_err());
    }

    #[test]
    fn queries_and_headers_add_up() {
        let mut draft = draft("/a?b=1");
        draft.query(&[("c", "2 3")]).unwrap();
        draft.query(&[("", ""); 0]).unwrap();
        assert!(draft.query("x").is_err());
        draft.header("x-one", "1").unwrap();
        draft.header("x-one", "2").unwrap();
        assert!(draft.header("a b", "1").is_err() && draft.header("a", "\n").is_err());
        draft.json(&[1]).unwrap();
        let request = draft.finish().unwrap();
        assert_eq!(request.uri(), "/a?b=1&c=2+3");
        assert_eq!(request.headers().get_all("x-one").iter().collect::<Vec<_>>(), ["1", "2"]);
        assert_eq!(request.headers()[CONTENT_TYPE], "application/json");
        assert_eq!(request.headers()[ACCEPT], "*/*");
        assert_eq!(request.body().as_bytes().unwrap(), &b"[1]"[..]);
    }

    #[test]
    fn headers_replace_those_of_their_names_alone() {
        let mut draft = draft("/");
        draft.header("a", "1").unwrap();
        draft.header("b", "1").unwrap();
        let mut new = HeaderMap::new();
        new.append("a", HeaderValue::from_static("2"));
        new.append("a", HeaderValue::from_static("3"));
        draft.headers(new);
        let request = draft.finish().unwrap();
        assert_eq!(request.headers().get_all("a").iter().collect::<Vec<_>>(), ["2", "3"]);
        assert_eq!(request.headers()["b"], "1");
    }
}
