//! Writing the value that a successful `list` or `watch` returns, as far as a page goes.

use std::{io, sync::Arc};

use roundsman_protocol::{Bookmark, Codec, Cursor, Dialect, Instance, Version, limits, v1, v2};

use super::{
    super::frame::{put, put_number},
    Form,
};
use crate::api::Cut;

/// How many bytes of an answer are one chunk, about: as much as a socket takes at a time.
const CHUNK: usize = 64 * 1_024;
/// What stands around the instances of a page, the frame included.
const AROUND: usize = limits::MAX_BOOKMARK_LEN + 512;

/// What is written around the instances.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sheet<'a> {
    pub(super) dialect: Dialect,
    pub(super) form: Form,
    pub(super) cut: &'a Cut,
}

/// The instances of a page as they are written.
#[derive(Debug)]
struct Lines {
    dialect: Dialect,
    full: Vec<Vec<u8>>,
    /// Behind those that are full.
    out: Vec<u8>,
    len: usize,
    count: u64,
}

// === impl Sheet ===

impl Sheet<'_> {
    /// Writes as many of the instances as fit into a frame of `most` bytes, at least one, and where the next page begins
    /// when that are not all.
    pub(super) fn write(self, instances: impl Iterator<Item = Arc<Instance>>, most: usize) -> io::Result<Vec<Vec<u8>>> {
        let most = most.saturating_sub(AROUND + if self.cut.is_whole() { 0 } else { 4 * 64 });
        let mut lines = Lines::new(self.dialect);
        let (mut last, mut next): (Option<Arc<Instance>>, Option<Bookmark>) = (None, None);
        for instance in instances {
            let fits = lines.push(&instance, most)?;
            if let Some(last) = last.as_deref().filter(|_| !fits) {
                next = Some(self.cut.next(last).map_err(io::Error::other)?);
                break;
            }
            last = Some(instance);
        }
        let (mut before, mut after) = (Vec::new(), Vec::new());
        self.begin(&mut before)?;
        if self.dialect.codec == Codec::Postcard {
            put_number(lines.count, &mut before)?;
        }
        self.end(next.as_ref(), &mut after)?;
        Ok(lines.between(before, &after))
    }

    /// What stands before the instances. Before version 3 a list is only they.
    fn begin(self, out: &mut Vec<u8>) -> io::Result<()> {
        let Self { dialect: Dialect { version, codec }, form, cut } = self;
        let cursor: Cursor = cut.first;
        let bare = form == Form::List && version < Version::V3;
        match (codec, form) {
            (Codec::Postcard, Form::List) if bare => Ok(()),
            (Codec::Postcard, Form::List) => put(codec, out, &cursor),
            (Codec::Postcard, Form::Watch) => put(codec, out, &(cursor, cut.is_whole())),
            (Codec::Json, _) => {
                if !bare {
                    out.extend_from_slice(b"{\"cursor\":");
                    put(codec, out, &cursor)?;
                    if form == Form::Watch {
                        out.extend_from_slice(b",\"snapshot\":");
                        put(codec, out, &cut.is_whole())?;
                    }
                    out.extend_from_slice(b",\"instances\":");
                }
                out.push(b'[');
                Ok(())
            }
        }
    }

    /// What stands after the instances: nothing is removed, and from version 3 on which parts there are and where the next
    /// page begins.
    fn end(self, next: Option<&Bookmark>, out: &mut Vec<u8>) -> io::Result<()> {
        let Self { dialect: Dialect { version, codec }, form, cut } = self;
        let current = version >= Version::V3;
        match (codec, form) {
            (Codec::Postcard, Form::List) if current => put(codec, out, &next),
            (Codec::Postcard, Form::Watch) if current => put(codec, out, &(0_u8, cut.parts(), next)),
            (Codec::Postcard, Form::List) => Ok(()),
            (Codec::Postcard, Form::Watch) => put(codec, out, &0_u8),
            (Codec::Json, Form::List) if !current => {
                out.push(b']');
                Ok(())
            }
            (Codec::Json, form) => {
                out.extend_from_slice(if form == Form::Watch { b"],\"removed\":[]" } else { b"]" });
                if form == Form::Watch && !cut.is_whole() {
                    out.extend_from_slice(b",\"parts\":");
                    put(codec, out, &cut.parts())?;
                }
                if let Some(next) = next {
                    out.extend_from_slice(b",\"next\":");
                    put(codec, out, next)?;
                }
                out.push(b'}');
                Ok(())
            }
        }
    }
}

// === impl Lines ===

impl Lines {
    fn new(dialect: Dialect) -> Self {
        Self { dialect, full: Vec::new(), out: Vec::new(), len: 0, count: 0 }
    }

    /// Writes one more, unless that would be more than `most` bytes and it is not the first. Says whether it fit.
    fn push(&mut self, instance: &Arc<Instance>, most: usize) -> io::Result<bool> {
        let Dialect { version, codec } = self.dialect;
        let before = self.out.len();
        if self.count > 0 && codec == Codec::Json {
            self.out.push(b',');
        }
        match version {
            Version::V1 => put(codec, &mut self.out, &v1::Instance::from(Arc::clone(instance)))?,
            Version::V2 => put(codec, &mut self.out, &<v2::Instance>::from(Arc::clone(instance)))?,
            Version::V3 => put(codec, &mut self.out, instance)?,
        }
        let written = self.out.len() - before;
        if self.count > 0 && self.len + written > most {
            self.out.truncate(before);
            return Ok(false);
        }
        self.len += written;
        self.count += 1;
        if self.out.len() >= CHUNK {
            self.full.push(std::mem::replace(&mut self.out, Vec::with_capacity(CHUNK + CHUNK / 8)));
        }
        Ok(true)
    }

    /// All of it, none of the chunks empty.
    fn between(self, before: Vec<u8>, after: &[u8]) -> Vec<Vec<u8>> {
        let Self { mut full, mut out, .. } = self;
        out.extend_from_slice(after);
        out.shrink_to_fit();
        full.push(out);
        match full.first_mut() {
            // Not a chunk of its own, which would be a packet of its own.
            Some(first) => drop(first.splice(..0, before)),
            None => full.push(before),
        }
        full.retain(|chunk| !chunk.is_empty());
        full
    }
}
