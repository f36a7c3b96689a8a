//! Arrays in NumPy's formats: one array as .npy, several with their names as .npz.
//!
//! See the formats' definitions: `numpy.lib.format`, and APPNOTE 6.3.10 of PKWARE for ZIP.

use flate2::Crc;

/// The first bytes of an .npy file, with the version 1.0.
const MAGIC: &[u8] = b"\x93NUMPY\x01\x00";
/// The values of an array start at a multiple of this number of bytes.
const ALIGNMENT: usize = 64;

/// Returns the .npy file of an array of `f32`.
pub fn floats(shape: &[usize], values: &[f32]) -> Vec<u8> {
    array("<f4", shape, bytemuck::cast_slice(values))
}

/// Returns the .npy file of an array of `u32`, with one axis.
pub fn labels(values: &[u32]) -> Vec<u8> {
    array("<u4", &[values.len()], bytemuck::cast_slice(values))
}

/// Returns the .npy file of an array of strings. NumPy pads each to the length of the longest one.
pub fn strings(shape: &[usize], values: &[&str]) -> Vec<u8> {
    let lengths = values.iter().map(|text| text.chars().count());
    let longest = lengths.max().unwrap_or(0).max(1);
    let padded = |text: &&str| {
        let padding = std::iter::repeat_n('\0', longest - text.chars().count());
        let chars: Vec<char> = text.chars().chain(padding).collect();
        chars.into_iter().flat_map(|c| u32::from(c).to_le_bytes())
    };
    let bytes: Vec<u8> = values.iter().flat_map(padded).collect();
    array(&format!("<U{longest}"), shape, &bytes)
}

fn array(dtype: &str, shape: &[usize], bytes: &[u8]) -> Vec<u8> {
    let sizes: String = shape.iter().map(|size| format!("{size}, ")).collect();
    let mut header =
        format!("{{'descr': '{dtype}', 'fortran_order': False, 'shape': ({sizes}), }}");
    // The magic, the header's length in two bytes, the header, and a line feed.
    let start = (MAGIC.len() + 2 + header.len() + 1).next_multiple_of(ALIGNMENT);
    let padding = start - MAGIC.len() - 2 - 1;
    header = format!("{header:padding$}\n");
    let mut file = MAGIC.to_vec();
    file.reserve(start + bytes.len());
    file.extend((header.len() as u16).to_le_bytes());
    file.extend(header.as_bytes());
    file.extend(bytes);
    file
}

/// Returns the .npz file of these arrays, each with the bytes of its .npy file. Values are not
/// compressed. Like NumPy, it uses ZIP64, so that an array may have 4 GiB and more.
pub fn archive(arrays: &[(&str, Vec<u8>)]) -> Vec<u8> {
    /// Stands for a number of 4 bytes that a field of 8 bytes gives.
    const ELSEWHERE: (u64, usize) = (0xffff_ffff, 4);
    /// The version of ZIP that a reader needs for ZIP64.
    const VERSION: (u64, usize) = (45, 2);
    /// The tag of the fields of 8 bytes.
    const ZIP64: (u64, usize) = (1, 2);
    let mut file = Vec::new();
    let mut directory = Vec::new();
    for (name, array) in arrays {
        let name = format!("{name}.npy");
        let mut crc = Crc::new();
        crc.update(array);
        let (start, len) = (file.len() as u64, (array.len() as u64, 8));
        // Flags, the method (stored), the time and the date (1 January 1980), the checksum, and
        // both lengths.
        let about = |extra: u64| {
            let stored = [(0, 2), (0, 2), (0, 2), (0x21, 2), (u64::from(crc.sum()), 4)];
            let lengths = [ELSEWHERE, ELSEWHERE, (name.len() as u64, 2), (extra, 2)];
            fields(&[&[VERSION], &stored[..], &lengths].concat())
        };
        file.extend(fields(&[(0x0403_4b50, 4)]));
        file.extend(about(20));
        file.extend(name.as_bytes());
        file.extend(fields(&[ZIP64, (16, 2), len, len]));
        file.extend(array);

        directory.extend(fields(&[(0x0201_4b50, 4), VERSION]));
        directory.extend(about(28));
        // No comment, disk 0, and no attributes.
        directory.extend(fields(&[(0, 2), (0, 2), (0, 2), (0, 4), ELSEWHERE]));
        directory.extend(name.as_bytes());
        directory.extend(fields(&[ZIP64, (24, 2), len, len, (start, 8)]));
    }
    let [start, len, count] = [file.len(), directory.len(), arrays.len()].map(|n| n as u64);
    let end = start + len;
    file.extend(directory);
    // The end of the directory, the place of this record, and the end for readers of plain ZIP.
    file.extend(fields(&[(0x0606_4b50, 4), (44, 8), VERSION, VERSION]));
    file.extend(fields(&[(0, 4), (0, 4), (count, 8), (count, 8)]));
    file.extend(fields(&[(len, 8), (start, 8)]));
    file.extend(fields(&[(0x0706_4b50, 4), (0, 4), (end, 8), (1, 4)]));
    file.extend(fields(&[(0x0605_4b50, 4), (0, 2), (0, 2)]));
    file.extend(fields(&[(count, 2), (count, 2), ELSEWHERE, ELSEWHERE]));
    file.extend(fields(&[(0, 2)]));
    file
}

/// Returns numbers with their lengths in bytes, little-endian.
fn fields(numbers: &[(u64, usize)]) -> Vec<u8> {
    let bytes = |&(number, len): &(u64, usize)| number.to_le_bytes().into_iter().take(len);
    numbers.iter().flat_map(bytes).collect()
}

/// Whether `bytes` are those of a file of [`floats`], or of an [`archive`] whose first array has
/// this name.
pub fn is_array(bytes: &[u8], name: &str) -> bool {
    /// Bytes before the name of the first file.
    const BEFORE_NAME: usize = 30;
    let name = format!("{name}.npy");
    let has = |at: usize, part: &[u8]| bytes.get(at..).is_some_and(|rest| rest.starts_with(part));
    (has(0, MAGIC) && has(MAGIC.len() + 2, b"{'descr': '<f4', "))
        || (has(0, b"PK\x03\x04") && has(BEFORE_NAME, name.as_bytes()))
}
