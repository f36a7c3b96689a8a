// The gradient of the weight of a convolution, with tiles in workgroup memory. dy and x are read in
// place.
//
//   dw[o, c, u, v] = sum over n, i, j of
//     dy[n, o, i, j] x[n, c, stride i + u - padding, stride j + v - padding]
//
//   x     [N, C, H, W]
//   dy    [N, O, OH, OW]
//   sums  element (split, tap, o, c) at split to_split + tap to_tap + o to_row + c to_column:
//         partial sums [splits, taps, O, C], or dw [O, C, KH, KW] if there is one split
// The f16 variants have f16 x and dy, and f32 sums. The variants matrix8 and matrix16 have f16
// tiles, which they multiply on matrix units, and round f32 factors to f16.
//
// A product of O rows, C columns and N OH OW terms for each tap. Terms are counted through planes
// and images; a split is a range of terms_per_split of them, and a multiple of 16. A workgroup
// computes one tile of one tap and split; see shared/tile.wgsl. Row tiles are fastest, then taps,
// then column tiles, so concurrent workgroups read the same images. The order of the sum is fixed.
//
// The lanes that load dy are the first ROWS, those that load x the last COLUMNS. Per block, a lane
// loads 16 elements:
//   vectors  for kernels of 1x1, stride 1, planes of whole vec4s: four neighbouring terms of four
//            channels, by vec4s, transposed in registers. The launch sets ow = OH OW and oh = 1.
//   gather   for all convolutions: one term of 16 channels, by elements. 16 lanes load neighbouring
//            terms. The position of the term in the plane advances without divisions. Channels
//            beyond the last one read any element of the binding; their sums are not stored.
// conv2d_dw_rows.wgsl is for kernels of 3x3, but not on matrix units.
//
// shared/tile.wgsl has memory, lanes and registers of each tile. In all, 2 N O OH OW C KH KW FLOPs.
// Bytes read by workgroups: 4 (f16: 2) N OH OW KH KW (O C / COLUMNS + C O / ROWS), mostly from
// caches; written: 4 splits KH KW O C.
#variant vectors_64x64 MATRIX=0 GATHER=0 ROWS=64 COLUMNS=64 LANES=128 QUADS=1 PART=0
#variant vectors_64x128 MATRIX=0 GATHER=0 ROWS=64 COLUMNS=128 LANES=128 QUADS=2 PART=1
#variant vectors_128x128 MATRIX=0 GATHER=0 ROWS=128 COLUMNS=128 LANES=256 QUADS=2 PART=0
#variant gather_64x64 MATRIX=0 GATHER=1 ROWS=64 COLUMNS=64 LANES=128 QUADS=1 PART=0
#variant gather_64x128 MATRIX=0 GATHER=1 ROWS=64 COLUMNS=128 LANES=128 QUADS=2 PART=1
#variant gather_128x128 MATRIX=0 GATHER=1 ROWS=128 COLUMNS=128 LANES=256 QUADS=2 PART=0
#variant vectors_matrix8 MATRIX=8 GATHER=0 ROWS=32 COLUMNS=32 LANES=32 PART=1
#variant vectors_matrix16 MATRIX=16 GATHER=0 ROWS=128 COLUMNS=128 LANES=128 PART=1
#variant gather_matrix8 MATRIX=8 GATHER=1 ROWS=32 COLUMNS=32 LANES=32 PART=1
#variant gather_matrix16 MATRIX=16 GATHER=1 ROWS=128 COLUMNS=128 LANES=128 PART=1

#f16

#if F16 + MATRIX
enable f16;
#end
#if MATRIX
enable wgpu_cooperative_matrix;
#end

#import grid
#import real
#import conv2d_dw_params
#import tile

#if MATRIX
alias Element = f16;
#else
alias Element = f32;
#end
#if GATHER
alias Loaded = real;
#else
alias Loaded = real4;
#end

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<Loaded>;
@group(0) @binding(2) var<storage, read> dy: array<Loaded>;
@group(0) @binding(3) var<storage, read_write> sums: array<f32>;

#for kind in 0..1
// Stores the sums of output channel `o` and four input channels.
fn store${kind}(base: u32, o: u32, first_column: u32, quad: u32, value: vec4f) {
    let c = first_column + quad * 4u;
    if o >= params.o {
        return;
    }
#for e in 0..4
    if c + ${e}u < params.c {
        sums[base + o * params.to_row + (c + ${e}u) * params.to_column] = value[${e}];
    }
#end
}

@compute @workgroup_size(${LANES})
fn partial(
    at: Invocation,
#if MATRIX
    @builtin(subgroup_id) subgroup: u32,
#end
) {
    let row_tiles = (params.o + ${ROWS - 1}u) / ${ROWS}u;
    let column_tiles = (params.c + ${COLUMNS - 1}u) / ${COLUMNS}u;
    let tile = workgroup_index(at);
    let first_row = tile % row_tiles * ${ROWS}u;
    let of_rows = tile / row_tiles;
    let tap = of_rows % params.taps;
    let of_taps = of_rows / params.taps;
    let first_column = of_taps % column_tiles * ${COLUMNS}u;
    // Surplus workgroups beyond the last split have no terms and store nothing.
    let split = of_taps / column_tiles;
    let first = min(split * params.terms_per_split, params.terms);
    let end = min(first + params.terms_per_split, params.terms);

    let lane = at.lane;
    let x_lane = lane - ${LANES - COLUMNS}u;
#if GATHER
    // This lane loads one term of every block, of the channels in four quads.
    let own_term = lane % 4u * 4u + lane / 8u % 4u;
    let row = lane / 4u % 2u + lane / 32u * 2u;
    let column = x_lane / 4u % 2u + x_lane / 32u * 2u;
    let u = tap / params.kernel_w;
    let v = tap - u * params.kernel_w;
#else
    // This lane loads four terms of every block, of the channels in one quad.
    let own_term = lane % 4u * 4u;
    let row = lane / 4u;
    let column = x_lane / 4u;
#end
    var term = first + own_term;
    let plane = params.oh * params.ow;
    var image = term / plane;
    var i = (term - image * plane) / params.ow;
    var j = term - image * plane - i * params.ow;
#import tile_sums
    let blocks = (end - first + 15u) / 16u;
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
            let inside = term < end;
            // Lanes beyond the last term load term 0 instead.
            let own_image = select(0u, image, inside);
            let pixel = select(0u, i * params.ow + j, inside);
#if GATHER
            let x_row = i * params.stride + u - params.padding;
            let x_column = j * params.stride + v - params.padding;
            let x_inside = inside && x_row < params.h && x_column < params.w;
            let x_pixel = select(0u, x_row * params.w + x_column, x_inside);
            if lane < ${ROWS}u {
                let dy_at = params.dy_offset + pixel + (own_image * params.o + first_row + row * 4u) * plane;
#for q in 0..4
#for e in 0..4
                let dy${q}_${e} = Element(dy[min(dy_at + ${q * ROWS / 4 + e}u * plane, params.dy_last)]);
#end
                part0[${q}] = select(Four(0.0), Four(dy${q}_0, dy${q}_1, dy${q}_2, dy${q}_3), inside);
#end
            }
            if lane >= ${LANES - COLUMNS}u {
                let x_plane = params.h * params.w;
                let x_at = params.x_offset + x_pixel + (own_image * params.c + first_column + column * 4u) * x_plane;
#for q in 0..4
#for e in 0..4
                let x${q}_${e} = Element(x[min(x_at + ${q * COLUMNS / 4 + e}u * x_plane, params.x_last)]);
#end
                part${PART}[${q}] = select(Four(0.0), Four(x${q}_0, x${q}_1, x${q}_2, x${q}_3), x_inside);
#end
            }
#else
            if lane < ${ROWS}u {
#for e in 0..4
                let dy${e} = Four(dy[(params.dy_offset + pixel
                    + (own_image * params.o + min(first_row + row * 4u + ${e}u, params.o - 1u)) * plane) / 4u]);
                part0[${e}] = select(Four(0.0), dy${e}, inside);
#end
                part0 = transpose(part0);
            }
            if lane >= ${LANES - COLUMNS}u {
#for e in 0..4
                let x${e} = Four(x[(params.x_offset + pixel
                    + (own_image * params.c + min(first_column + column * 4u + ${e}u, params.c - 1u)) * plane) / 4u]);
                part${PART}[${e}] = select(Four(0.0), x${e}, inside);
#end
                part${PART} = transpose(part${PART});
            }
#end
            term += 16u;
            j += 16u;
            while j >= params.ow {
                j -= params.ow;
                i += 1u;
                if i == params.oh {
                    i = 0u;
                    image += 1u;
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
            if lane < ${ROWS}u {
#for q in 0..4
#if GATHER
                a_tile[a_at(half, own_term, row + ${q * ROWS / 16}u)] = part0[${q}];
#else
                a_tile[a_at(half, own_term + ${q}u, row)] = part0[${q}];
#end
#end
            }
            if lane >= ${LANES - COLUMNS}u {
#for q in 0..4
#if GATHER
                b_tile[b_at(half, own_term, column + ${q * COLUMNS / 16}u)] = part${PART}[${q}];
#else
                b_tile[b_at(half, own_term + ${q}u, column)] = part${PART}[${q}];
#end
#end
            }
        }
        workgroupBarrier();
    }
#end
    if split < params.splits {
        let base = split * params.to_split + tap * params.to_tap;
#import tile_results
    }
}

#end
