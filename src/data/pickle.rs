//! Python pickles of plain data: dictionaries, lists, numbers, strings and NumPy arrays. A pickle
//! is a program for a stack machine that may call any function of Python. No function is called: a
//! pickle that needs any but the known constructors of plain data is an error.
//!
//! All values are stored in one list and refer to each other by index, so deep nesting causes no
//! recursion.

/// A value of a pickle.
pub struct Pickle {
    values: Vec<Value>,
    root: usize,
}

enum Value {
    Number(i64),
    /// A string of bytes.
    Bytes(Vec<u8>),
    Text(String),
    /// A list or a tuple.
    List(Vec<usize>),
    Dict(Vec<(usize, usize)>),
    /// The name of a function or class.
    Global(String),
    /// An array or its type, with the arguments of its constructor.
    Object(Option<usize>),
    /// None, a boolean or a floating-point number, which no reader uses.
    Other,
}

/// Functions that rebuild data, under the names of all versions of Python and NumPy.
const ENCODE: &str = "_codecs encode";
const REBUILDING: [&str; 8] = [
    "numpy.core.multiarray _reconstruct",
    "numpy._core.multiarray _reconstruct",
    "numpy.core.numeric _frombuffer",
    "numpy._core.numeric _frombuffer",
    "numpy ndarray",
    "numpy dtype",
    "__builtin__ bytes",
    "builtins bytes",
];

/// Maximum bytes of all strings of a list. A pickle may list one long string many times.
const MOST_TEXT: usize = 1 << 20;

impl Pickle {
    /// Reads a pickle of any protocol.
    ///
    /// # Errors
    /// The reason, in a few words, if it is damaged or has anything but plain data.
    pub fn read(bytes: &[u8]) -> Result<Self, String> {
        let mut machine = Machine {
            bytes,
            at: 0,
            values: Vec::new(),
            stack: Vec::new(),
            marks: Vec::new(),
            memo: Vec::new(),
            copied: 0,
        };
        let root = machine.run()?;
        Ok(Pickle {
            values: machine.values,
            root,
        })
    }

    fn get(&self, key: &str) -> Result<&Value, String> {
        let Value::Dict(entries) = &self.values[self.root] else {
            return Err("it holds no dictionary".to_string());
        };
        let is_key = |&&(name, _): &&(usize, usize)| match &self.values[name] {
            Value::Text(text) => text == key,
            Value::Bytes(bytes) => bytes == key.as_bytes(),
            _ => false,
        };
        let found = entries.iter().rev().find(is_key);
        let (_, value) = found.ok_or_else(|| format!("it has no '{key}'"))?;
        Ok(&self.values[*value])
    }

    fn text(&self, place: usize) -> Option<String> {
        match &self.values[place] {
            Value::Text(text) => Some(text.clone()),
            Value::Bytes(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
            _ => None,
        }
    }

    /// The bytes under `key`, as a string or as an array of bytes.
    ///
    /// # Errors
    /// The reason if there are none.
    pub fn bytes(&self, key: &str) -> Result<&[u8], String> {
        let mut value = self.get(key)?;
        if let Value::Object(Some(state)) = value {
            value = &self.values[*state];
        }
        if let Value::List(parts) = value {
            // The state of an array has one string of bytes, its content.
            let is_bytes = |place: &&usize| matches!(self.values[**place], Value::Bytes(_));
            value = parts
                .iter()
                .find(is_bytes)
                .map_or(value, |&place| &self.values[place]);
        }
        match value {
            Value::Bytes(bytes) => Ok(bytes),
            _ => Err(format!("its '{key}' are no bytes")),
        }
    }

    /// The whole numbers of the list under `key`.
    ///
    /// # Errors
    /// The reason if there are none.
    pub fn numbers(&self, key: &str) -> Result<Vec<i64>, String> {
        let wrong = || format!("its '{key}' are no list of numbers");
        let Value::List(places) = self.get(key)? else {
            return Err(wrong());
        };
        let numbers = places.iter().map(|&place| match self.values[place] {
            Value::Number(number) => Ok(number),
            _ => Err(wrong()),
        });
        numbers.collect()
    }

    /// The strings of the list under `key`.
    ///
    /// # Errors
    /// The reason if there are none, or if they are longer than 1 MiB.
    pub fn strings(&self, key: &str) -> Result<Vec<String>, String> {
        let wrong = || format!("its '{key}' are no list of strings");
        let Value::List(places) = self.get(key)? else {
            return Err(wrong());
        };
        let mut strings = Vec::new();
        let mut bytes = 0;
        for &place in places {
            let text = self.text(place).ok_or_else(wrong)?;
            bytes += text.len();
            if bytes > MOST_TEXT {
                return Err(format!("its '{key}' have more than {MOST_TEXT} bytes"));
            }
            strings.push(text);
        }
        Ok(strings)
    }
}

/// The machine: a stack of indices into `values`, the marked heights of the stack, and the memo of
/// indices that are used again.
struct Machine<'a> {
    bytes: &'a [u8],
    at: usize,
    values: Vec<Value>,
    stack: Vec<usize>,
    marks: Vec<usize>,
    memo: Vec<Option<usize>>,
    /// Total bytes of values that were built from other values.
    copied: usize,
}

impl Machine<'_> {
    fn run(&mut self) -> Result<usize, String> {
        loop {
            let at = self.at;
            match self.take(1)?[0] {
                b'.' => return self.pop(),
                // The protocol's version and the length of a frame.
                0x80 => drop(self.take(1)?),
                0x95 => drop(self.take(8)?),
                b'(' => self.marks.push(self.stack.len()),
                b'0' => drop(self.pop()?),
                b'1' => drop(self.pop_marked()?),
                b'2' => {
                    let top = self.pop()?;
                    self.stack.extend([top, top]);
                }
                b'N' | 0x88 | 0x89 => self.push(Value::Other),
                b'G' => {
                    self.take(8)?;
                    self.push(Value::Other);
                }
                b'F' => {
                    self.line()?;
                    self.push(Value::Other);
                }
                b'K' => self.number(1)?,
                b'M' => self.number(2)?,
                b'J' => {
                    let bytes = self.take(4)?;
                    let number = i32::from_le_bytes(bytes.try_into().expect("four bytes"));
                    self.push(Value::Number(i64::from(number)));
                }
                0x8a => {
                    let count = self.length(1)?;
                    let bytes = self.take(count)?;
                    let value = long(bytes);
                    self.push(value);
                }
                b'I' | b'L' => {
                    let line = self.line()?;
                    let number = line.trim_end_matches('L').parse();
                    self.push(number.map_or(Value::Other, Value::Number));
                }
                b'U' | b'C' => self.bytes(1)?,
                b'T' | b'B' => self.bytes(4)?,
                0x8e | 0x96 => self.bytes(8)?,
                0x8c => self.text(1)?,
                b'X' => self.text(4)?,
                0x8d => self.text(8)?,
                b'V' => {
                    let text = self.line()?;
                    self.push(Value::Text(text));
                }
                b'S' => {
                    let line = self.line()?;
                    let quoted = line
                        .get(1..line.len().saturating_sub(1))
                        .unwrap_or_default();
                    if quoted.contains('\\') {
                        return Err("it has a string with escapes, which are not read".to_string());
                    }
                    self.push(Value::Bytes(quoted.as_bytes().to_vec()));
                }
                b']' | b')' => self.push(Value::List(Vec::new())),
                b'}' => self.push(Value::Dict(Vec::new())),
                b'l' | b't' => {
                    let items = self.pop_marked()?;
                    self.push(Value::List(items));
                }
                b'd' => {
                    let items = self.pop_marked()?;
                    self.push(Value::Dict(pairs(&items)));
                }
                0x85..=0x87 => {
                    let count = usize::from(self.bytes[at] - 0x84);
                    let first = self.stack.len().checked_sub(count).ok_or_else(damaged)?;
                    let items = self.stack.split_off(first);
                    self.push(Value::List(items));
                }
                b'a' => {
                    let item = self.pop()?;
                    self.append(&[item])?;
                }
                b'e' => {
                    let items = self.pop_marked()?;
                    self.append(&items)?;
                }
                b's' => {
                    let (value, key) = (self.pop()?, self.pop()?);
                    self.insert(&[key, value])?;
                }
                b'u' => {
                    let items = self.pop_marked()?;
                    self.insert(&items)?;
                }
                b'p' => {
                    let number = self.line()?.parse().map_err(|_| damaged())?;
                    self.remember(number)?;
                }
                b'q' => {
                    let number = self.length(1)?;
                    self.remember(number)?;
                }
                b'r' => {
                    let number = self.length(4)?;
                    self.remember(number)?;
                }
                0x94 => self.remember(self.memo.len())?,
                b'g' => {
                    let number = self.line()?.parse().map_err(|_| damaged())?;
                    self.recall(number)?;
                }
                b'h' => {
                    let number = self.length(1)?;
                    self.recall(number)?;
                }
                b'j' => {
                    let number = self.length(4)?;
                    self.recall(number)?;
                }
                b'c' => {
                    let name = format!("{} {}", self.line()?, self.line()?);
                    self.push(Value::Global(name));
                }
                0x93 => {
                    let (name, module) = (self.pop()?, self.pop()?);
                    match (&self.values[module], &self.values[name]) {
                        (Value::Text(module), Value::Text(name)) => {
                            let name = format!("{module} {name}");
                            self.copies(name.len())?;
                            self.push(Value::Global(name));
                        }
                        _ => return Err(damaged()),
                    }
                }
                b'R' | 0x81 => self.rebuild()?,
                b'b' => {
                    let (state, object) = (self.pop()?, self.top()?);
                    match &mut self.values[object] {
                        Value::Object(built) => *built = Some(state),
                        _ => return Err(damaged()),
                    }
                }
                code => {
                    return Err(format!(
                        "the code {code:#04x} at byte {at} is none of plain data"
                    ));
                }
            }
        }
    }

    fn take(&mut self, count: usize) -> Result<&[u8], String> {
        let end = self
            .at
            .checked_add(count)
            .filter(|&end| end <= self.bytes.len());
        let end = end.ok_or("it ends early")?;
        let taken = &self.bytes[self.at..end];
        self.at = end;
        Ok(taken)
    }

    /// A line of text, without its end.
    fn line(&mut self) -> Result<String, String> {
        let rest = &self.bytes[self.at..];
        let length = rest.iter().position(|&byte| byte == b'\n');
        let length = length.ok_or("it ends early")?;
        let line = String::from_utf8_lossy(&rest[..length]).into_owned();
        self.at += length + 1;
        Ok(line)
    }

    /// A length or number of `width` bytes.
    fn length(&mut self, width: usize) -> Result<usize, String> {
        let mut number = [0; 8];
        number[..width].copy_from_slice(self.take(width)?);
        usize::try_from(u64::from_le_bytes(number)).map_err(|_| damaged())
    }

    fn number(&mut self, width: usize) -> Result<(), String> {
        let number = self.length(width)? as i64;
        self.push(Value::Number(number));
        Ok(())
    }

    fn bytes(&mut self, width: usize) -> Result<(), String> {
        let length = self.length(width)?;
        let bytes = self.take(length)?.to_vec();
        self.push(Value::Bytes(bytes));
        Ok(())
    }

    fn text(&mut self, width: usize) -> Result<(), String> {
        let length = self.length(width)?;
        let text = String::from_utf8_lossy(self.take(length)?).into_owned();
        self.push(Value::Text(text));
        Ok(())
    }

    fn push(&mut self, value: Value) {
        self.stack.push(self.values.len());
        self.values.push(value);
    }

    fn top(&self) -> Result<usize, String> {
        let first = self.marks.last().copied().unwrap_or(0);
        let above = self.stack.get(first..).and_then(<[usize]>::last);
        above.copied().ok_or_else(damaged)
    }

    fn pop(&mut self) -> Result<usize, String> {
        let top = self.top()?;
        self.stack.pop();
        Ok(top)
    }

    fn pop_marked(&mut self) -> Result<Vec<usize>, String> {
        let mark = self.marks.pop().filter(|&mark| mark <= self.stack.len());
        Ok(self.stack.split_off(mark.ok_or_else(damaged)?))
    }

    fn append(&mut self, items: &[usize]) -> Result<(), String> {
        let list = self.top()?;
        match &mut self.values[list] {
            Value::List(list) => list.extend(items),
            _ => return Err(damaged()),
        }
        Ok(())
    }

    fn insert(&mut self, items: &[usize]) -> Result<(), String> {
        let dict = self.top()?;
        match &mut self.values[dict] {
            Value::Dict(dict) => dict.extend(pairs(items)),
            _ => return Err(damaged()),
        }
        Ok(())
    }

    fn remember(&mut self, number: usize) -> Result<(), String> {
        let top = self.top()?;
        // Numbers are counted up, so that none is larger than the pickle.
        if number > self.bytes.len() {
            return Err(damaged());
        }
        if self.memo.len() <= number {
            self.memo.resize(number + 1, None);
        }
        self.memo[number] = Some(top);
        Ok(())
    }

    fn recall(&mut self, number: usize) -> Result<(), String> {
        let known = self.memo.get(number).copied().flatten();
        self.stack.push(known.ok_or_else(damaged)?);
        Ok(())
    }

    /// Counts the bytes of a value that was built from other values.
    ///
    /// # Errors
    /// If all such values have more bytes than the pickle. It may use one long text many times.
    fn copies(&mut self, len: usize) -> Result<(), String> {
        self.copied += len;
        if self.copied <= self.bytes.len() {
            Ok(())
        } else {
            Err(damaged())
        }
    }

    /// Rebuilds bytes or an array from a function and its arguments.
    fn rebuild(&mut self) -> Result<(), String> {
        let (arguments, function) = (self.pop()?, self.pop()?);
        let Value::Global(name) = &self.values[function] else {
            return Err(damaged());
        };
        if name == ENCODE {
            // Python 3 writes bytes for Python 2 as text of the characters 0 to 255.
            let Value::List(parts) = &self.values[arguments] else {
                return Err(damaged());
            };
            let Some(Value::Text(text)) = parts.first().map(|&first| &self.values[first]) else {
                return Err(damaged());
            };
            let len = text.len();
            let bytes = text.chars().map(|c| u8::try_from(u32::from(c)));
            let bytes = bytes.collect::<Result<_, _>>().map_err(|_| damaged())?;
            self.copies(len)?;
            self.push(Value::Bytes(bytes));
        } else if REBUILDING.contains(&name.as_str()) {
            self.push(Value::Object(Some(arguments)));
        } else {
            let name: String = name.chars().take(60).collect();
            return Err(format!(
                "it calls {}, and pickles are never executed",
                name.replace(' ', ".")
            ));
        }
        Ok(())
    }
}

fn pairs(items: &[usize]) -> Vec<(usize, usize)> {
    items
        .chunks_exact(2)
        .map(|pair| (pair[0], pair[1]))
        .collect()
}

/// A whole number in little-endian bytes, of any length.
fn long(bytes: &[u8]) -> Value {
    if bytes.len() > 8 {
        return Value::Other;
    }
    let is_negative = bytes.last().is_some_and(|last| last & 0x80 != 0);
    let mut number = [if is_negative { 0xff } else { 0 }; 8];
    number[..bytes.len()].copy_from_slice(bytes);
    Value::Number(i64::from_le_bytes(number))
}

fn damaged() -> String {
    "it is damaged".to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(bytes: &[u8]) -> String {
        Pickle::read(bytes).err().expect("it is refused")
    }

    /// `{'labels': [1, 258, -3], 'data': b'ab', 'names': ['x', 'y']}` of protocols 0, 2 and 4.
    #[test]
    fn all_protocols_give_the_same_data() {
        let protocol_0 = b"(dp0\nS'labels'\np1\n(lp2\nI1\naI258\naL-3L\nasS'data'\np3\nS'ab'\np4\nsS'names'\np5\n(lp6\nVx\np7\naVy\np8\nas.";
        let protocol_2 = b"\x80\x02}q\x00(U\x06labelsq\x01]q\x02(K\x01M\x02\x01J\xfd\xff\xff\xffeU\x04dataq\x03U\x02abq\x04U\x05namesq\x05]q\x06(X\x01\x00\x00\x00xq\x07X\x01\x00\x00\x00yq\x08eu.";
        let protocol_4 = b"\x80\x04\x95\x39\0\0\0\0\0\0\0}\x94(\x8c\x06labels\x94]\x94(K\x01M\x02\x01\x8a\x01\xfde\x8c\x04data\x94C\x02ab\x94\x8c\x05names\x94]\x94(\x8c\x01x\x94\x8c\x01y\x94eu.";
        for bytes in [&protocol_0[..], protocol_2, protocol_4] {
            let pickle = Pickle::read(bytes).unwrap();
            assert_eq!(pickle.numbers("labels").unwrap(), [1, 258, -3]);
            assert_eq!(pickle.bytes("data").unwrap(), b"ab");
            assert_eq!(pickle.strings("names").unwrap(), ["x", "y"]);
            assert!(pickle.numbers("names").is_err() && pickle.bytes("none").is_err());
            for end in 0..bytes.len() {
                assert!(Pickle::read(&bytes[..end]).is_err(), "{end} bytes");
            }
        }
    }

    /// `{'data': b'\x00\xff'}` as Python 3 writes it with protocol 2.
    #[test]
    fn bytes_of_python_3_are_decoded() {
        let bytes = b"\x80\x02}X\x04\0\0\0datac_codecs\nencode\nX\x03\0\0\0\0\xc3\xbfX\x06\0\0\0latin1\x86Rs.";
        assert_eq!(
            Pickle::read(bytes).unwrap().bytes("data").unwrap(),
            [0, 255]
        );
    }

    #[test]
    fn a_pickle_that_calls_a_function_is_refused_by_its_name() {
        assert!(error(b"cos\nsystem\n(S'true'\ntR.").contains("os.system"));
        assert!(
            error(b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x04true\x85R.").contains("os.system")
        );
    }

    /// Memory does not grow by more than the size of the file when one text is used many times.
    #[test]
    fn a_text_that_is_used_many_times_is_refused() {
        let text = vec![b'x'; 1 << 16];
        let text = [&b"X\0\0\x01\0"[..], &text].concat();
        let decoded = b"c_codecs\nencode\nq\0(h\x01tR".repeat(1000);
        let decoded = [&text, &b"q\x01"[..], &decoded, b"."].concat();
        assert!(error(&decoded).contains("damaged"));
        let named = [&text, &b"q\x01"[..], &b"h\x01\x93h\x01".repeat(1000), b"."].concat();
        assert!(error(&named).contains("damaged"));
        let once = [&text, &b"q\x01c_codecs\nencode\n(h\x01tR."[..]].concat();
        assert!(Pickle::read(&once).is_ok());

        let listed = [
            b"}X\x01\0\0\0k(",
            &text[..],
            b"q\0",
            &b"h\0".repeat(1000),
            b"ls.",
        ];
        let pickle = Pickle::read(&listed.concat()).unwrap();
        assert!(pickle.strings("k").unwrap_err().contains("more than"));
    }

    #[test]
    fn hostile_pickles_are_errors() {
        // Two million nested lists, and lengths beyond the file.
        let nested = [vec![b']'; 2_000_000], vec![b'a'; 1_999_999], vec![b'.']].concat();
        assert!(Pickle::read(&nested).unwrap().numbers("labels").is_err());
        for bytes in [
            &b"\x80\x02\x8e\xff\xff\xff\xff\xff\xff\xff\x7f."[..],
            b"\x80\x02]r\xff\xff\xff\xff.",
            b"B\xff\xff\xff\x7fx",
            b"e.",
            b"(.",
            b"R.",
            b"h\x01.",
            b"\x87.",
            b"",
        ] {
            error(bytes);
        }
    }
}
