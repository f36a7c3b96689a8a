// The parameters of a convolution. All variants share this struct.
struct Params {
    // images x grid_h x grid_w
    pixels: u32,
    grid_h: u32,
    grid_w: u32,
    input_channels: u32,
    input_h: u32,
    input_w: u32,
    output_channels: u32,
    output_h: u32,
    output_w: u32,
    step: u32,
    row: i32,
    column: i32,
    direction: i32,
    // The taps in use start at (tap_row, tap_column), tap_step apart, in rows of kernel_w taps.
    taps_h: u32,
    taps_w: u32,
    tap_row: u32,
    tap_column: u32,
    tap_step: u32,
    kernel_w: u32,
    out_step: u32,
    out_row: u32,
    out_column: u32,
    w_tap: u32,
    w_term: u32,
    // Elements before image 0.
    input_offset: u32,
    output_offset: u32,
}
