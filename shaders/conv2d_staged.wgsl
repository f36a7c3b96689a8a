// Convolution as implicit GEMM, with tiles of the weight and the input in workgroup memory.
// Formulas, tensors and parameters are those of conv2d.wgsl.
//
// Tile: a workgroup of 128 holds 64 output channels x 128 pixels, and an invocation 8 x 8 of them
// in registers, as in gemm_staged.wgsl. For each tap and 16 channels of the input, the workgroup
// copies 16 x 64 weights and 16 x 128 pixels to workgroup memory. A vec4 of the staged input has
// four pixels 32 apart, so neighbours load neighbouring pixels. An invocation computes the
// addresses of its four pixels once per tap. Rows of the staged tiles are padded by one vec4.
// 12,800 bytes of workgroup memory.
//
// The sum runs over blocks of 16 channels, then taps, then channels of the block, as in
// conv2d.wgsl. The last block is padded with zeros, so this variant is inefficient for few
// channels, such as the three of a stem. Pixels beyond the last one repeat it and are not stored.
// One workgroup per tile, channel tiles fastest. The f16 variant has f16 input, w and output;
// staged values and sums are f32.
//
// For lower bounds of the time, see conv2d.wgsl. The speed on a hardware GPU is not measured.

#f16

#if F16
enable f16;
#end

#import grid
#import real
#import conv2d_params

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> input: array<real>;
@group(0) @binding(2) var<storage, read> w: array<real4>;
@group(0) @binding(3) var<storage, read_write> output: array<real>;

// 16 channels with 16 vec4s (64 output channels) and 32 vec4s (128 pixels), each padded by one
// vec4.
var<workgroup> w_tile: array<vec4f, 272>;
var<workgroup> input_tile: array<vec4f, 528>;

@compute @workgroup_size(128)
fn conv2d(at: Invocation) {
    let channel_tiles = (params.output_channels + 63u) / 64u;
    let tile = workgroup_index(at);
    let first_channel = tile % channel_tiles * 64u;
    let first_pixel = tile / channel_tiles * 128u;
    let grid = params.grid_h * params.grid_w;
    let plane = params.input_h * params.input_w;

    // This invocation copies one vec4 of every eighth channel of w, and four pixels of every fourth
    // channel of the input.
    let w_vector = at.lane % 16u;
    let w_channel = at.lane / 16u;
    let w_from = first_channel / 4u + w_vector;
    let quad = at.lane % 32u;
    let input_channel = at.lane / 32u;
    let pixel = min(vec4u(first_pixel + quad) + vec4u(0u, 32u, 64u, 96u), vec4u(params.pixels - 1u));
    let image = pixel / grid;
    let in_grid = pixel - image * grid;
    let i = in_grid / params.grid_w;
    let j = in_grid - i * params.grid_w;
    let base = params.input_offset + image * params.input_channels * plane;
    let row = vec4i(i * params.step) + params.row;
    let column = vec4i(j * params.step) + params.column;

    // It computes eight output channels of the pixels in vec4s `vector` and `vector + 16`.
    let channels = at.lane / 16u * 2u;
    let vector = at.lane % 16u;
#for r in 0..8
#for v in 0..2
    var sum${r}_${v} = vec4f(0.0);
#end
#end
    for (var block = 0u; block < params.input_channels; block += 16u) {
        for (var u = 0u; u < params.taps_h; u++) {
            // A negative index wraps around to a large number.
            let input_row = vec4u(row + params.direction * i32(u));
            let tap_row = (params.tap_row + u * params.tap_step) * params.kernel_w + params.tap_column;
            for (var v = 0u; v < params.taps_w; v++) {
                let input_column = vec4u(column + params.direction * i32(v));
                let inside = (input_row < vec4u(params.input_h)) & (input_column < vec4u(params.input_w));
                // For a pixel outside, the first element of its channel is loaded instead.
                let read_at = base + select(vec4u(0u), input_row * params.input_w + input_column, inside);
                let w_at = w_from + (tap_row + v * params.tap_step) * params.w_tap;
#for i in 0..2
                let w_p${i} = block + w_channel + ${8 * i}u;
                var w_value${i} = vec4f(0.0);
                if w_p${i} < params.input_channels {
                    w_value${i} = vec4f(w[w_at + w_p${i} * params.w_term]);
                }
#end
#for i in 0..4
                let p${i} = block + input_channel + ${4 * i}u;
                var value${i} = vec4f(0.0);
                if p${i} < params.input_channels {
                    let at${i} = read_at + p${i} * plane;
                    let loaded = vec4f(
                        f32(input[at${i}.x]), f32(input[at${i}.y]), f32(input[at${i}.z]), f32(input[at${i}.w]),
                    );
                    value${i} = select(vec4f(0.0), loaded, inside);
                }
#end
                // Until here, other invocations may read the previous tiles.
                workgroupBarrier();
#for i in 0..2
                w_tile[(w_channel + ${8 * i}u) * 17u + w_vector] = w_value${i};
#end
#for i in 0..4
                input_tile[(input_channel + ${4 * i}u) * 33u + quad] = value${i};
#end
                workgroupBarrier();
                for (var p = 0u; p < 16u; p++) {
#for q in 0..2
                    let left${q} = w_tile[p * 17u + channels + ${q}u];
#end
#for v in 0..2
                    let right${v} = input_tile[p * 33u + vector + ${16 * v}u];
#end
#for r in 0..8
#for v in 0..2
                    sum${r}_${v} = fma(vec4f(left${r / 4}[${r % 4}]), right${v}, sum${r}_${v});
#end
#end
                }
            }
        }
    }

    let output_plane = params.output_h * params.output_w;
    let own_channel = first_channel + channels * 4u;
#for v in 0..2
#for k in 0..4
    let pixel${v}_${k} = first_pixel + vector + ${16 * v + 32 * k}u;
    if pixel${v}_${k} < params.pixels {
        let image = pixel${v}_${k} / grid;
        let in_grid = pixel${v}_${k} - image * grid;
        let i = in_grid / params.grid_w;
        let j = in_grid - i * params.grid_w;
        let to = params.output_offset + (image * params.output_channels + own_channel) * output_plane
            + (i * params.out_step + params.out_row) * params.output_w + j * params.out_step + params.out_column;
#for r in 0..8
        if own_channel + ${r}u < params.output_channels {
            output[to + ${r}u * output_plane] = real(sum${r}_${v}[${k}]);
        }
#end
    }
#end
#end
}
