// What a product is launched with: one struct, since a launch fills it before it knows the variant.
struct Params {
    m: u32,
    n: u32,
    k: u32,
    a_offset: u32,
    a_term: u32,
    b_offset: u32,
    b_term: u32,
    // elements before row 0 of c, and of a row
    c_offset: u32,
    c_stride: u32,
    // first column written
    column: u32,
    accumulate: u32,
}
