// The parameters of a product. All variants share this struct.
struct Params {
    m: u32,
    n: u32,
    k: u32,
    a_offset: u32,
    a_term: u32,
    b_offset: u32,
    b_term: u32,
    // Elements before row 0 of c, and per row.
    c_offset: u32,
    c_stride: u32,
    // The first column that is written.
    column: u32,
    accumulate: u32,
}
