// The parameters of the tiled weight gradients. All variants share this struct.
struct Params {
    o: u32,
    c: u32,
    oh: u32,
    ow: u32,
    h: u32,
    w: u32,
    taps: u32,
    kernel_w: u32,
    stride: u32,
    padding: u32,
    // Images x OH x OW, and the number of them per split.
    terms: u32,
    terms_per_split: u32,
    splits: u32,
    // Elements before image 0, and the last element.
    x_offset: u32,
    x_last: u32,
    dy_offset: u32,
    dy_last: u32,
    to_split: u32,
    to_tap: u32,
    to_row: u32,
    to_column: u32,
    // conv2d_dw_rows.wgsl: the terms of a block are rows of 1 << run_log2 pixels, or parts of rows.
    run_log2: u32,
}
