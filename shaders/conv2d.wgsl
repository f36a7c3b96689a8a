// Convolution as implicit GEMM: the forward pass and the gradient of the input, which is the same
// sum with other parameters.
//
//   output[n, q, out_step i + out_row, out_step j + out_column]
//     = sum over channels p, taps u < taps_h, v < taps_w of
//       input[n, p, step i + row + direction u, step j + column + direction v] w[q, p, tap(u, v)]
//
// for i < grid_h, j < grid_w. The input is 0 outside its planes.
//
//   input   [N, P, input_h, input_w]    x, or dy for dx
//   w       [KH KW, P, Q]               vec4s along q, padded to whole tiles (gemm_pack.wgsl):
//                                       w[tap w_tap + p w_term + q / 4]
//   output  [N, Q, output_h, output_w]  y, or dx
//
//   forward: step = stride, direction = 1, row = column = -padding, out_step = 1; all taps.
//   dx: an input pixel meets only the taps on the grid of the stride, which are the same for all
//       pixels with the same remainders by the stride. So there is one launch per pair (r, s) of
//       remainders: out_step = stride, out_row = r, out_column = s, step = 1, direction = -1, taps
//       (r + padding) mod stride + u stride, row = (r + padding) div stride.
//
// Tile: an invocation holds ROWS output channels x 4 VECTORS pixels in registers, and a workgroup
// ROWS channels x 4 VECTORS WORKGROUP pixels. Pixels are counted across rows, planes and images, so
// small planes fill a tile too. For each tap and channel, an invocation loads its pixels, and
// neighbours load neighbouring pixels. The ROWS weights are uniform in the workgroup. The sum runs
// over blocks of channels, then taps, then channels of the block, so the pixels of a block stay in
// the cache. Invocations beyond the last pixel repeat it without storing: control flow is uniform.
//
// The variant narrow is for up to four output channels, as in dx of a stem. The f16 variants have
// f16 input, w and output, and f32 sums. conv2d_tiled.wgsl computes the same with workgroup
// memory. One workgroup per tile, channel tiles fastest: concurrent workgroups share pixels.
//
// Lower bounds of the time: 2 N Q OH OW P KH KW FLOPs at the peak rate; 4 (f16: 2) (input + w +
// output) bytes at the memory bandwidth.
#variant plain ROWS=8 VECTORS=2 WORKGROUP=64
#variant narrow ROWS=4 VECTORS=2 WORKGROUP=64

#f16

#if F16
enable f16;
#end

#import grid
#import real
struct Params {
#import conv2d_params
    w_term: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> input: array<real>;
@group(0) @binding(2) var<storage, read> w: array<real4>;
@group(0) @binding(3) var<storage, read_write> output: array<real>;

// Channels per block.
const BLOCK: u32 = 16u;

@compute @workgroup_size(${WORKGROUP})
fn conv2d(at: Invocation) {
    let channel_tiles = (params.output_channels + ${ROWS - 1}u) / ${ROWS}u;
    let tile = workgroup_index(at);
    let first_channel = tile % channel_tiles * ${ROWS}u;
    let first_pixel = tile / channel_tiles * ${4 * VECTORS * WORKGROUP}u + at.lane;
    let grid = params.grid_h * params.grid_w;
    let plane = params.input_h * params.input_w;
    let size_h = vec4u(params.input_h);
    let size_w = vec4u(params.input_w);
#for v in 0..VECTORS
    let own${v} = vec4u(first_pixel + ${4 * v * WORKGROUP}u)
        + vec4u(0u, ${WORKGROUP}u, ${2 * WORKGROUP}u, ${3 * WORKGROUP}u);
    let pixel${v} = min(own${v}, vec4u(params.pixels - 1u));
    let image${v} = pixel${v} / grid;
    let in_grid${v} = pixel${v} - image${v} * grid;
    let i${v} = in_grid${v} / params.grid_w;
    let j${v} = in_grid${v} - i${v} * params.grid_w;
    let base${v} = params.input_offset + image${v} * params.input_channels * plane;
    let row${v} = vec4i(i${v} * params.step) + params.row;
    let column${v} = vec4i(j${v} * params.step) + params.column;
#end
    let w_offset = first_channel / 4u;
#for r in 0..ROWS
#for v in 0..VECTORS
    var sum${r}_${v} = vec4f(0.0);
#end
#end
    for (var block = 0u; block < params.input_channels; block += BLOCK) {
        let block_end = min(block + BLOCK, params.input_channels);
        for (var u = 0u; u < params.taps_h; u++) {
            let down = params.direction * i32(u);
            let tap_row = (params.tap_row + u * params.tap_step) * params.kernel_w + params.tap_column;
            for (var v = 0u; v < params.taps_w; v++) {
                let right = params.direction * i32(v);
#for v in 0..VECTORS
                // A negative index wraps around to a large number.
                let input_row${v} = vec4u(row${v} + down);
                let input_column${v} = vec4u(column${v} + right);
                let inside${v} = (input_row${v} < size_h) & (input_column${v} < size_w);
                // For a pixel outside, the first element of its channel is loaded instead.
                var read_at${v} = base${v} + block * plane
                    + select(vec4u(0u), input_row${v} * params.input_w + input_column${v}, inside${v});
#end
                var left_at = (tap_row + v * params.tap_step) * params.w_tap + block * params.w_term;
                for (var p = block; p < block_end; p++) {
#for q in 0..ROWS/4
                    let left${q} = vec4f(w[w_offset + left_at + ${q}u]);
#end
#for v in 0..VECTORS
                    let loaded${v} = vec4f(
                        f32(input[read_at${v}.x]),
                        f32(input[read_at${v}.y]),
                        f32(input[read_at${v}.z]),
                        f32(input[read_at${v}.w]),
                    );
                    let right${v} = select(vec4f(0.0), loaded${v}, inside${v});
#end
#import outer_product
#for v in 0..VECTORS
                    read_at${v} += plane;
#end
                    left_at += params.w_term;
                }
            }
        }
    }

    let output_plane = params.output_h * params.output_w;
#for v in 0..VECTORS
    let write_at${v} = params.output_offset + (image${v} * params.output_channels + first_channel) * output_plane
        + (i${v} * params.out_step + params.out_row) * params.output_w + j${v} * params.out_step + params.out_column;
#end
#for v in 0..VECTORS
#for k in 0..4
    if own${v}[${k}] < params.pixels {
#for q in 0..ROWS
        if first_channel + ${q}u < params.output_channels {
            output[write_at${v}[${k}] + ${q}u * output_plane] = real(sum${q}_${v}[${k}]);
        }
#end
    }
#end
#end
}
