//! Whose answer it is: the header field or the text that a check expects.

/// Whether a field that was given these values has `value`, alone or as one of several.
pub(super) fn in_fields<'a>(value: &str, fields: impl IntoIterator<Item = &'a [u8]>) -> bool {
    fields.into_iter().any(|field| {
        let one = |part: &[u8]| part.trim_ascii() == value.as_bytes();
        one(field) || field.split(|byte| *byte == b',').any(one)
    })
}

/// Whether a body has this text.
pub(super) fn in_body(text: &[u8], body: &[u8]) -> bool {
    text.is_empty() || body.windows(text.len()).any(|part| part == text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_stands_alone_or_in_a_list() {
        for field in ["product-1", " product-1 ", "order-1, product-1", "product-1,order-1"] {
            assert!(in_fields("product-1", [field.as_bytes()]), "{field}");
        }
        assert!(in_fields("product-1", [&b"order-1"[..], b"product-1"]));
        for field in ["", "product-12", "Product-1", "product-1 x", "product;product-1"] {
            assert!(!in_fields("product-1", [field.as_bytes()]), "{field}");
        }
    }

    #[test]
    fn a_text_stands_anywhere_in_a_body() {
        assert!(in_body(b"ok", b"ok") && in_body(b"ok", b"it is ok.") && !in_body(b"ok", b"o k"));
        assert!(!in_body(b"longer", b"long"));
    }
}
