//! Small damages to valid messages, for the bounded runs in the test command.
#![allow(dead_code, reason = "not every test needs all of it")]

use std::path::Path;

use proptest::prelude::{Strategy, any, prop_oneof};

/// What is written into messages: pieces that readers stumbled over, here or elsewhere.
const PIECES: [&str; 20] = [
    "\"id\":1,",
    "\"id\":-1,",
    "\"message\":{},",
    "\"name\":\"a\",",
    "\"service\":null,",
    "\"codec\":\"json\",",
    "\"roundsman\":2,",
    "{",
    "}",
    "]",
    "\"",
    "\\ud800",
    "\0",
    "null",
    "\r\n\r\n",
    "\r\n",
    "content-length: 18446744073709551616\r\n",
    "transfer-encoding: chunked\r\n",
    " HTTP/1.1\r\n",
    "\u{202e}",
];

/// What numbers are replaced by.
const NUMBERS: [&str; 8] =
    ["-1", "18446744073709551616", "340282366920938463463374607431768211456", "1e400", "0.5", "-0", "007", ""];

/// One damage. Places are given as numbers that are taken modulo what there is.
#[derive(Clone, Debug)]
pub(crate) enum Mutation {
    FlipBit(usize, u32),
    SetByte(usize, u8),
    Cut(usize),
    Remove(usize, u8),
    Repeat(usize, u8, u8),
    /// Goes on, from a place on, as another message does from some place on.
    Splice(usize, usize, usize),
    /// A piece after one of the opening braces: that is how keys are duplicated.
    PieceInside(usize, usize),
    PieceAnywhere(usize, usize),
    Number(usize, usize),
    /// A place from which on there are only opening brackets.
    Nest(usize, u8),
}

/// Any damage.
pub(crate) fn mutation() -> impl Strategy<Value = Mutation> {
    let at = || any::<usize>();
    prop_oneof![
        (at(), 0_u32..8).prop_map(|(at, bit)| Mutation::FlipBit(at, bit)),
        (at(), any::<u8>()).prop_map(|(at, byte)| Mutation::SetByte(at, byte)),
        at().prop_map(Mutation::Cut),
        (at(), any::<u8>()).prop_map(|(at, count)| Mutation::Remove(at, count)),
        (at(), any::<u8>(), any::<u8>()).prop_map(|(at, count, times)| Mutation::Repeat(at, count, times)),
        (at(), at(), at()).prop_map(|(at, other, from)| Mutation::Splice(at, other, from)),
        (at(), at()).prop_map(|(brace, piece)| Mutation::PieceInside(brace, piece)),
        (at(), at()).prop_map(|(at, piece)| Mutation::PieceAnywhere(at, piece)),
        (at(), at()).prop_map(|(which, number)| Mutation::Number(which, number)),
        (at(), any::<u8>()).prop_map(|(at, depth)| Mutation::Nest(at, depth)),
    ]
}

impl Mutation {
    /// Damages a message; `others` are what it is spliced with.
    pub(crate) fn apply(&self, message: &mut Vec<u8>, others: &[Vec<u8>]) {
        if message.is_empty() {
            return;
        }
        let len = message.len();
        match *self {
            Self::FlipBit(at, bit) => message[at % len] ^= 1 << bit,
            Self::SetByte(at, byte) => message[at % len] = byte,
            Self::Cut(at) => message.truncate(at % len),
            Self::Remove(at, count) => {
                let at = at % len;
                message.drain(at..(at + usize::from(count)).min(len));
            }
            Self::Repeat(at, count, times) => {
                let at = at % len;
                let piece = message[at..(at + usize::from(count)).min(len)].repeat(usize::from(times % 16));
                message.splice(at..at, piece);
            }
            Self::Splice(at, other, from) => {
                let other = &others[other % others.len()];
                message.truncate(at % len);
                message.extend(&other[from % (other.len() + 1)..]);
            }
            Self::PieceInside(brace, piece) => {
                let braces: Vec<usize> = (0..len).filter(|at| message[*at] == b'{').collect();
                let at = if braces.is_empty() { brace % len } else { braces[brace % braces.len()] + 1 };
                message.splice(at..at, PIECES[piece % PIECES.len()].bytes());
            }
            Self::PieceAnywhere(at, piece) => {
                let at = at % len;
                message.splice(at..at, PIECES[piece % PIECES.len()].bytes());
            }
            Self::Number(which, number) => replace_number(message, which, NUMBERS[number % NUMBERS.len()]),
            Self::Nest(at, depth) => {
                message.truncate(at % len);
                message.extend(std::iter::repeat_n(b'[', usize::from(depth) * 32));
            }
        }
    }
}

fn replace_number(message: &mut Vec<u8>, which: usize, number: &str) {
    let digit = |at: usize| message.get(at).is_some_and(u8::is_ascii_digit);
    let starts: Vec<usize> = (0..message.len()).filter(|at| digit(*at) && (*at == 0 || !digit(*at - 1))).collect();
    if starts.is_empty() {
        return;
    }
    let start = starts[which % starts.len()];
    let end = (start..).find(|at| !digit(*at)).unwrap_or(message.len());
    message.splice(start..end, number.bytes());
}

/// The checked-in messages of a target, by file name.
pub(crate) fn corpus(target: &str) -> Vec<(String, Vec<u8>)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = root.ancestors().map(|folder| folder.join("fuzz/corpus").join(target)).find(|folder| folder.is_dir());
    let folder = folder.unwrap_or_else(|| panic!("there is no corpus {target}"));
    let files = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap());
    let mut files: Vec<(String, Vec<u8>)> =
        files.map(|file| (file.file_name().into_string().unwrap(), std::fs::read(file.path()).unwrap())).collect();
    files.sort();
    files
}

/// Those of them that are valid.
pub(crate) fn valid(target: &str) -> Vec<Vec<u8>> {
    corpus(target).into_iter().filter(|(name, _)| name.starts_with("valid")).map(|(_, message)| message).collect()
}
