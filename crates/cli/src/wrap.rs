//! Breaking lines where the terminal ends.

/// Breaks a text into lines of at most `width` characters, between words where there are any. Colours have no width.
pub(crate) fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    let mut used = 0;
    for (nth, word) in text.split(' ').enumerate() {
        let mut word = word;
        loop {
            let Some(line) = lines.last_mut() else { return lines };
            let blank = usize::from(nth > 0 && used > 0);
            let length = shown(word);
            if used + blank + length <= width {
                line.extend(std::iter::repeat_n(' ', blank));
                line.push_str(word);
                used += blank + length;
                break;
            }
            if used == 0 {
                let (first, rest) = word.split_at(end_of(word, width.max(1)));
                line.push_str(first);
                word = rest;
            }
            lines.push(String::new());
            used = 0;
        }
    }
    if lines.len() > 1 && lines.last().is_some_and(String::is_empty) {
        lines.pop();
    }
    lines
}

/// How many characters of it are shown.
pub(crate) fn shown(text: &str) -> usize {
    visible(text).count()
}

/// Where the first so many shown characters end.
fn end_of(text: &str, count: usize) -> usize {
    visible(text).nth(count).unwrap_or(text.len())
}

/// Where each character begins that is not part of a colour's code.
fn visible(text: &str) -> impl Iterator<Item = usize> {
    let mut code = false;
    text.char_indices().filter_map(move |(at, c)| {
        let was = code;
        code = if was { c != 'm' } else { c == '\u{1b}' };
        (!was && !code).then_some(at)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_words_are_broken_and_nothing_is_lost() {
        assert_eq!(wrap("abcdefgh ij", 4), ["abcd", "efgh", "ij"]);
        assert_eq!(wrap("", 4), [""]);
        assert_eq!(wrap("a b c d e", 3), ["a b", "c d", "e"]);
        assert_eq!(wrap("äöü ß", 3), ["äöü", "ß"]);
    }

    #[test]
    fn colours_have_no_width() {
        assert_eq!(shown("\u{1b}[31mevicted\u{1b}[0m"), 7);
        assert_eq!(wrap("\u{1b}[31mab\u{1b}[0m cd", 5), ["\u{1b}[31mab\u{1b}[0m cd"]);
    }
}
