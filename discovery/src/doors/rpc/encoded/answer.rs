//! An encoded answer, and how it becomes a frame.

use std::{io, sync::Arc};

use bytes::Bytes;
use roundsman_protocol::Codec;

use super::{
    super::{
        frame::{HEADER, put_number},
        outbox::Outbox,
    },
    Form,
};
use crate::{
    memory::{Reservation, kept},
    method::Method,
};

/// A long answer but for the id of the call.
#[derive(Debug)]
pub(in super::super) struct Encoded {
    form: Form,
    /// Each is accounted for until every client has read it.
    chunks: Vec<Bytes>,
    len: usize,
}

// === impl Encoded ===

impl Encoded {
    pub(super) fn new(form: Form, chunks: Vec<Vec<u8>>, mut reservation: Reservation) -> Self {
        let len = chunks.iter().map(Vec::len).sum();
        reservation.settle(len);
        let reservation = Arc::new(reservation);
        Self { form, chunks: chunks.into_iter().map(|chunk| kept(chunk, &reservation)).collect(), len }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Puts a frame into the outbox: what belongs to this one call, and around it what all share.
    pub(in super::super) fn put(&self, codec: Codec, id: u64, outbox: &mut Outbox) -> io::Result<()> {
        let method = match self.form {
            Form::List => Method::List,
            Form::Watch => Method::Watch,
        };
        let (variant, name) = (method.number(), method.variant());
        let (mut before, mut after) = (vec![0; HEADER], String::new());
        match codec {
            // Response.message: Ok; DiscoveryResponse: the method; its result: Ok.
            Codec::Postcard => {
                put_number(id, &mut before)?;
                before.extend_from_slice(&[0, variant, 0]);
            }
            Codec::Json => {
                let text = format!("{{\"request_id\":{id},\"message\":{{\"Ok\":{{\"{name}\":{{\"Ok\":");
                before.extend_from_slice(text.as_bytes());
                after.push_str("}}}}");
            }
        }
        let length = u32::try_from(before.len() - HEADER + self.len + after.len()).map_err(io::Error::other)?;
        if let Some(header) = before.first_chunk_mut::<HEADER>() {
            *header = length.to_be_bytes();
        }
        outbox.append(|out| io::Write::write_all(out, &before))?;
        outbox.share(self.chunks.iter().cloned());
        outbox.append(|out| io::Write::write_all(out, after.as_bytes()))
    }
}
