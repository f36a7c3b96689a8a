// Convolution as implicit GEMM, with tiles in workgroup memory: the forward pass and the gradient
// of the input. conv2d.wgsl has the formula. The kernel has at most 16 x 16 taps.
//
//   input     [N, P, input_h, input_w]    x, or dy for dx
//   w         per tap, element (line, e) at tap w_tap + line a_stride + e: [P, Q] if a_by_terms,
//             otherwise [Q, P], in place. Rows are whole vec4s.
//   output    [N, Q, output_h, output_w]  y, or dx
//   partials  [splits, Q, pixels] (conv2d_of_split)
// The f16 variants have f16 input, w and output; tiles and sums are f32. The variants matrix8 and
// matrix16 have f16 tiles, which they multiply on matrix units, and round f32 factors to f16.
//
// A product of Q rows, `pixels` columns and P terms for each tap. A block is 16 channels of one
// tap. Blocks of the same channels follow each other, so most pixels are loaded from a cache.
// Pixels are counted through rows, planes and images. A workgroup computes one tile of the output
// over one split of the channels; see shared/tile.wgsl. A vec4 of the tile of the input has four
// pixels COLUMNS / 4 apart, so neighbouring lanes load and store neighbouring pixels.
//
// The last COLUMNS lanes load four pixels of four channels per block, by elements. The position of
// a pixel, and a mask of the rows and columns of the kernel that meet its plane, are computed once.
// A pixel outside counts as 0. gemm_tiled.wgsl is for kernels of 1x1.
//
// Bands of eight tiles of channels run one after the other, tiles of channels fastest. The order of
// the sum is fixed.
//
// shared/tile.wgsl has memory, lanes and registers of each tile; the positions of four pixels take
// 8 more registers. In all, 2 pixels Q P taps FLOPs. Bytes read by workgroups:
// 4 pixels Q P taps (1 / COLUMNS + 1 / ROWS), mostly from caches; written: 4 (f16: 2) pixels Q, or
// 4 splits pixels Q.
#variant 64x64 MATRIX=0 ROWS=64 COLUMNS=64 LANES=128 QUADS=1 PART=0
#variant 64x128 MATRIX=0 ROWS=64 COLUMNS=128 LANES=128 QUADS=2 PART=1
#variant 128x128 MATRIX=0 ROWS=128 COLUMNS=128 LANES=256 QUADS=2 PART=0
#variant matrix8 MATRIX=8 ROWS=32 COLUMNS=32 LANES=32 PART=1
#variant matrix16 MATRIX=16 ROWS=128 COLUMNS=128 LANES=128 PART=1

#f16

#if F16 + MATRIX
enable f16;
#end
#if MATRIX
enable wgpu_cooperative_matrix;
#end

#import grid
#import real
#import tile

struct Params {
#import conv2d_params
    a_stride: u32,
    a_by_terms: u32,
    channels_per_split: u32,
    splits: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> input: array<real>;
@group(0) @binding(2) var<storage, read> w: array<real4>;
@group(0) @binding(3) var<storage, read_write> output: array<real>;
@group(0) @binding(4) var<storage, read_write> partials: array<f32>;

// Four elements of the line at `at`, from `element` on, or the last ones.
fn load_a(at: u32, element: u32, last: u32) -> Four {
    return Four(w[(at + min(element, last / 4u * 4u)) / 4u]);
}

#for kind in 0..2
// Stores four pixels of output channel `q`. They are those of one quad of the tile.
fn store${kind}(base: u32, q: u32, first_column: u32, quad: u32, value: vec4f) {
    if q >= params.output_channels {
        return;
    }
#for e in 0..4
    let pixel${e} = first_column + quad + ${COLUMNS / 4 * e}u;
    if pixel${e} < params.pixels {
#if kind == 1
        partials[base + q * params.pixels + pixel${e}] = value[${e}];
#else
        let grid = params.grid_h * params.grid_w;
        let plane = params.output_h * params.output_w;
        let image = pixel${e} / grid;
        let in_grid = pixel${e} - image * grid;
        let i = in_grid / params.grid_w;
        let j = in_grid - i * params.grid_w;
        let to = base + (image * params.output_channels + q) * plane
            + (i * params.out_step + params.out_row) * params.output_w + j * params.out_step + params.out_column;
        output[to] = real(value[${e}]);
#end
    }
#end
}

@compute @workgroup_size(${LANES})
#if kind
fn conv2d_of_split(
#else
fn conv2d(
#end
    at: Invocation,
#if MATRIX
    @builtin(subgroup_id) subgroup: u32,
#end
) {
    let sizes = vec3u(params.output_channels, params.pixels, params.input_channels);
    let per_split = params.channels_per_split;
#import tile_place
    // It also loads these four pixels.
    let b_lane = lane - ${LANES - COLUMNS}u;
    let b_quad = b_lane % ${COLUMNS / 4}u;
    let b_term = b_lane / ${COLUMNS / 4}u * 4u;
    let grid = params.grid_h * params.grid_w;
    let plane = params.input_h * params.input_w;
    let pixel = min(
        vec4u(first_column + b_quad) + vec4u(0u, ${COLUMNS / 4}u, ${COLUMNS / 2}u, ${3 * COLUMNS / 4}u),
        vec4u(params.pixels - 1u),
    );
    let image = pixel / grid;
    let in_grid = pixel - image * grid;
    let row = vec4i(in_grid / params.grid_w * params.step) + params.row;
    let column = vec4i(in_grid % params.grid_w * params.step) + params.column;
    // A negative index wraps around to a large number, and the sum of all parts is right again.
    let pixel_at = params.input_offset + image * params.input_channels * plane
        + vec4u(row) * params.input_w + vec4u(column);
    // Bit u: row u of the kernel meets the plane. Bit 16 + v: column v does.
    var mask = vec4u(0u);
    for (var u = 0u; u < params.taps_h; u++) {
        let inside = vec4u(row + params.direction * i32(u)) < vec4u(params.input_h);
        mask |= select(vec4u(0u), vec4u(1u << u), inside);
    }
    for (var v = 0u; v < params.taps_w; v++) {
        let inside = vec4u(column + params.direction * i32(v)) < vec4u(params.input_w);
        mask |= select(vec4u(0u), vec4u(0x10000u << v), inside);
    }
#import tile_sums
    // The channels and the tap of the block.
    var term = first;
    var u = 0u;
    var v = 0u;
    let blocks = (end - first + 15u) / 16u * params.taps_h * params.taps_w;
#for phase in (MATRIX == 0)..2
#if phase
    for (var block = ${MATRIX > 0}u; block <= blocks; block++) {
#else
    // naga 30 accepts no condition around products of matrices, so the first block is loaded
    // before.
    {
        let block = 0u;
#end
#for p in 0..1 + PART
        var part${p}: Part;
#end
        if block < blocks {
            let a_from = params.w_tap * ((params.tap_row + u * params.tap_step) * params.kernel_w
                + params.tap_column + v * params.tap_step);
#import tile_load_a
            if lane >= ${LANES - COLUMNS}u {
                let shift = u32(params.direction) * (u * params.input_w + v);
                let inside = ((mask >> vec4u(u)) & (mask >> vec4u(16u + v)) & vec4u(1u)) != vec4u(0u);
                // For a pixel outside, the first element of its channel is loaded instead.
                let read_at = select(vec4u(params.input_offset), pixel_at + shift, inside);
#for i in 0..4
                let channel${i} = term + b_term + ${i}u;
                let at${i} = read_at + min(channel${i}, params.input_channels - 1u) * plane;
                let loaded${i} = Four(real4(input[at${i}.x], input[at${i}.y], input[at${i}.z], input[at${i}.w]));
                part${PART}[${i}] = select(Four(0.0), loaded${i}, inside & vec4<bool>(channel${i} < end));
#end
            }
            v += 1u;
            if v == params.taps_w {
                v = 0u;
                u += 1u;
                if u == params.taps_h {
                    u = 0u;
                    term += 16u;
                }
            }
        }
#if phase
#if MATRIX
        {
#else
        if block > 0u {
#end
            let half = (block - 1u) % 2u;
#import tile_multiply
        }
#end
        if block < blocks {
            let half = block % 2u;
#import tile_store
        }
        workgroupBarrier();
    }
#end
    if split < params.splits {
#if kind
        let base = split * params.output_channels * params.pixels;
#else
        let base = params.output_offset;
#end
#import tile_results
    }
}

#end
