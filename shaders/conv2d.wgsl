// Convolution as implicit GEMM: the forward pass, and the gradient of its input, which is the same sum with other numbers.
//
//   output[n, q, out_step i + out_row, out_step j + out_column]
//     = sum over channels p, taps u < taps_h, v < taps_w of
//       input[n, p, step i + row + direction u, step j + column + direction v] w[tap(u, v), p, q]
//
// for i < grid_h, j < grid_w; input is 0 outside its planes.
//
//   input  [N, P, input_h, input_w]   x, or dy for dx
//   w       [KH KW, P, 4 w_stride]       weights with the output's channels last, padded to a whole tile (pack.wgsl)
//   output  [N, Q, output_h, output_w]   y, or dx
//
//   forward: step = stride, direction = 1, row = column = -padding, out_step = 1; all taps.
//   dx: an input pixel meets only those taps that land on the stride's grid, the same ones for all pixels with the same
//       remainder by the stride. So dx is one launch for each pair of remainders (r, s): out_step = stride, out_row = r,
//       out_column = s, step = 1, direction = -1, taps (r + padding) mod stride + u stride, row = (r + padding) div stride.
//       Nothing is computed that is thrown away, and each pixel is written once.
//
// Tile: an invocation holds CHANNELS output channels x 4 pixels in registers, a workgroup of 64 covers CHANNELS channels x
// 256 pixels, which run through rows, planes and images, so that small planes fill it too. A pixel is taken apart into
// image, row and column once. For each tap and channel an invocation loads 4 elements of input (neighbours load
// neighbours) and CHANNELS weights, which are the same for the whole workgroup: CHANNELS / 4 vec4s. The sum runs over
// blocks of channels, then taps, then the channels of a block, so that a block's pixels stay in the cache from tap to tap.
// Invocations behind the last pixel repeat it and store nothing, so that control flow stays uniform.
//
// One workgroup a tile, channel tiles fastest: the workgroups that run together share pixels.
//
// Floors: 2 N Q OH OW P KH KW FLOPs over the peak; 4 (input + w + output) bytes over the bandwidth.
#variant wide CHANNELS=16
#variant narrow CHANNELS=4

#import grid

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
    // taps in use: taps_h x taps_w from (tap_row, tap_column), tap_step apart, of a kernel of kernel_w columns
    taps_h: u32,
    taps_w: u32,
    tap_row: u32,
    tap_column: u32,
    tap_step: u32,
    kernel_w: u32,
    out_step: u32,
    out_row: u32,
    out_column: u32,
    // vec4s of a row of w
    w_stride: u32,
    // elements before image 0
    input_offset: u32,
    output_offset: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> input: array<f32>;
@group(0) @binding(2) var<storage, read> w: array<vec4f>;
@group(0) @binding(3) var<storage, read_write> output: array<f32>;

// Channels between two changes of the tap.
const BLOCK: u32 = 16u;

@compute @workgroup_size(64)
fn conv2d(at: Invocation) {
    let channel_tiles = (params.output_channels + ${CHANNELS - 1}u) / ${CHANNELS}u;
    let tile = workgroup_index(at);
    let first_channel = tile % channel_tiles * ${CHANNELS}u;
    let first_pixel = tile / channel_tiles * 256u + at.lane;
    let pixel = min(vec4u(first_pixel) + vec4u(0u, 64u, 128u, 192u), vec4u(params.pixels - 1u));
    let grid = params.grid_h * params.grid_w;
    let image = pixel / grid;
    let in_grid = pixel - image * grid;
    let i = in_grid / params.grid_w;
    let j = in_grid - i * params.grid_w;

    let plane = params.input_h * params.input_w;
    let base = params.input_offset + image * params.input_channels * plane;
    let row = vec4i(i * params.step) + params.row;
    let column = vec4i(j * params.step) + params.column;
    let size_h = vec4u(params.input_h);
    let size_w = vec4u(params.input_w);
#for q in 0..CHANNELS
    var sum${q} = vec4f(0.0);
#end
    for (var block = 0u; block < params.input_channels; block += BLOCK) {
        let block_end = min(block + BLOCK, params.input_channels);
        for (var u = 0u; u < params.taps_h; u++) {
            let input_row = vec4u(row + params.direction * i32(u));
            let tap_row = (params.tap_row + u * params.tap_step) * params.kernel_w + params.tap_column;
            for (var v = 0u; v < params.taps_w; v++) {
                let input_column = vec4u(column + params.direction * i32(v));
                // A negative index is a large unsigned one.
                let inside = (input_row < size_h) & (input_column < size_w);
                // A pixel outside reads the first element of its channel instead.
                var read_at = base + block * plane
                    + select(vec4u(0u), input_row * params.input_w + input_column, inside);
                var w_at = ((tap_row + v * params.tap_step) * params.input_channels + block) * params.w_stride
                    + first_channel / 4u;
                for (var p = block; p < block_end; p++) {
                    let value = select(
                        vec4f(0.0),
                        vec4f(input[read_at.x], input[read_at.y], input[read_at.z], input[read_at.w]),
                        inside,
                    );
#for q in 0..CHANNELS/4
                    let weight${q} = w[w_at + ${q}u];
#for r in 0..4
                    sum${4 * q + r} = fma(vec4f(weight${q}[${r}]), value, sum${4 * q + r});
#end
#end
                    read_at += plane;
                    w_at += params.w_stride;
                }
            }
        }
    }

    let output_plane = params.output_h * params.output_w;
    let write_at = params.output_offset + (image * params.output_channels + first_channel) * output_plane
        + (i * params.out_step + params.out_row) * params.output_w + j * params.out_step + params.out_column;
#for k in 0..4
    if first_pixel + ${64 * k}u < params.pixels {
#for q in 0..CHANNELS
        if first_channel + ${q}u < params.output_channels {
            output[write_at[${k}] + ${q}u * output_plane] = sum${q}[${k}];
        }
#end
    }
#end
}
