// C = A B (+ bias), for all four transpositions, and convolutions of 1x1, with tiles in workgroup
// memory. All operands are read in place.
//
//   a         [K, M] if a_by_terms, else [M, K]: element (line, e) at a_offset + line a_stride + e
//   b         [K, N] if b_by_terms, else [N, K], likewise. If b_by_terms, columns are counted
//             through planes: column n is element n % plane of the image n / plane, b_image apart.
//   bias      [N], from bias_offset on (gemm_with_bias)
//   c         element (m, n) at c_offset + m c_row + (n / plane) c_image + n % plane
//   partials  [splits, M, N] (gemm_of_split)
//
// For a product, `plane` is N. A convolution of 1x1 and stride 1 has M = output channels, K = input
// channels, N = images x pixels and a = the weight; dx swaps the channels. The f16 variants have
// f16 a, b and c; tiles and sums are f32. The variants matrix8 and matrix16 have f16 tiles, which
// they multiply on matrix units, and round f32 factors to f16.
//
// A workgroup computes one tile of C over one split of the terms; see shared/tile.wgsl. The lanes
// that load A are the first ROWS, those that load B the last COLUMNS. Per block, a lane loads four
// terms of four rows or columns. Bands of eight row tiles run one after the other, row tiles
// fastest, so concurrent workgroups share rows of A and columns of B. The order of the sum is
// fixed.
//
// The variants vectors load and store vec4s, and require that all strides, offsets, N and planes
// are multiples of 4. Tiles at an edge load the last vec4 again. The variants elements have no
// requirements.
//
// shared/tile.wgsl has memory, lanes and registers of each tile. In all, 2 M N K FLOPs. Bytes read
// by workgroups: 4 M N K (1 / COLUMNS + 1 / ROWS), mostly from caches; written: 4 M N, or
// 4 splits M N.
#variant elements_64x64 MATRIX=0 WIDTH=1 F16=0 ROWS=64 COLUMNS=64 LANES=128 QUADS=1 PART=0
#variant elements_64x128 MATRIX=0 WIDTH=1 F16=0 ROWS=64 COLUMNS=128 LANES=128 QUADS=2 PART=1
#variant elements_128x128 MATRIX=0 WIDTH=1 F16=0 ROWS=128 COLUMNS=128 LANES=256 QUADS=2 PART=0
#variant vectors_64x64 MATRIX=0 WIDTH=4 F16=0 ROWS=64 COLUMNS=64 LANES=128 QUADS=1 PART=0
#variant vectors_64x128 MATRIX=0 WIDTH=4 F16=0 ROWS=64 COLUMNS=128 LANES=128 QUADS=2 PART=1
#variant vectors_128x128 MATRIX=0 WIDTH=4 F16=0 ROWS=128 COLUMNS=128 LANES=256 QUADS=2 PART=0
#variant vectors_64x64_f16 MATRIX=0 WIDTH=4 F16=1 ROWS=64 COLUMNS=64 LANES=128 QUADS=1 PART=0
#variant vectors_64x128_f16 MATRIX=0 WIDTH=4 F16=1 ROWS=64 COLUMNS=128 LANES=128 QUADS=2 PART=1
#variant vectors_128x128_f16 MATRIX=0 WIDTH=4 F16=1 ROWS=128 COLUMNS=128 LANES=256 QUADS=2 PART=0
#variant matrix8_elements MATRIX=8 WIDTH=1 F16=0 ROWS=32 COLUMNS=32 LANES=32 PART=1
#variant matrix8_vectors MATRIX=8 WIDTH=4 F16=0 ROWS=32 COLUMNS=32 LANES=32 PART=1
#variant matrix8_vectors_f16 MATRIX=8 WIDTH=4 F16=1 ROWS=32 COLUMNS=32 LANES=32 PART=1
#variant matrix16_elements MATRIX=16 WIDTH=1 F16=0 ROWS=128 COLUMNS=128 LANES=128 PART=1
#variant matrix16_vectors MATRIX=16 WIDTH=4 F16=0 ROWS=128 COLUMNS=128 LANES=128 PART=1
#variant matrix16_vectors_f16 MATRIX=16 WIDTH=4 F16=1 ROWS=128 COLUMNS=128 LANES=128 PART=1

#if F16 + MATRIX
enable f16;
#end
#if MATRIX
enable wgpu_cooperative_matrix;
#end

#import grid
#import real
#import tile

#if WIDTH == 1
alias Stored = f32;
alias Sums = f32;
#else
alias Stored = real4;
alias Sums = vec4f;
#end

struct Params {
    m: u32,
    n: u32,
    k: u32,
    terms_per_split: u32,
    splits: u32,
    a_offset: u32,
    a_stride: u32,
    a_by_terms: u32,
    b_offset: u32,
    b_stride: u32,
    b_by_terms: u32,
    b_image: u32,
    plane: u32,
    c_offset: u32,
    c_row: u32,
    c_image: u32,
    bias_offset: u32,
    accumulate: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> a: array<Stored>;
@group(0) @binding(2) var<storage, read> b: array<Stored>;
@group(0) @binding(3) var<storage, read_write> c: array<Stored>;
@group(0) @binding(4) var<storage, read_write> partials: array<Sums>;
#if F16 == 0
@group(0) @binding(5) var<storage, read> bias: array<f32>;
#end

// Four elements of the line at `at`, from `element` on, or the last ones.
fn load_a(at: u32, element: u32, last: u32) -> Four {
#if WIDTH == 1
    return Four(vec4f(
        a[at + min(element, last)], a[at + min(element + 1u, last)],
        a[at + min(element + 2u, last)], a[at + min(element + 3u, last)],
    ));
#else
    return Four(a[(at + min(element, last / 4u * 4u)) / 4u]);
#end
}

fn load_b(at: u32, element: u32, last: u32) -> Four {
#if WIDTH == 1
    return Four(vec4f(
        b[at + min(element, last)], b[at + min(element + 1u, last)],
        b[at + min(element + 2u, last)], b[at + min(element + 3u, last)],
    ));
#else
    return Four(b[(at + min(element, last / 4u * 4u)) / 4u]);
#end
}

#for kind in 0..3 - F16
// Stores four columns of row `m`.
fn store${kind}(base: u32, m: u32, first_column: u32, quad: u32, value: vec4f) {
    let n = first_column + quad * 4u;
    if m >= params.m || n >= params.n {
        return;
    }
#if kind == 1
    let to = base + m * params.n + n;
#else
    let image = n / params.plane;
    let to = base + m * params.c_row + image * params.c_image + n - image * params.plane;
#end
    var result = value;
#if kind == 2
    if params.accumulate == 0u {
#for i in 0..4
        result[${i}] += bias[params.bias_offset + min(n + ${i}u, params.n - 1u)];
#end
    }
#end
#for i in 0..4 / WIDTH
#if WIDTH == 1
    if n + ${i}u < params.n {
        var sum = result[${i}];
#else
    {
        var sum = result;
#end
#if kind == 1
        partials[to / ${WIDTH}u + ${i}u] = sum;
#else
        if params.accumulate != 0u {
            sum += Sums(c[to / ${WIDTH}u + ${i}u]);
        }
        c[to / ${WIDTH}u + ${i}u] = Stored(sum);
#end
    }
#end
}

@compute @workgroup_size(${LANES})
#if kind == 0
fn gemm(
#end
#if kind == 1
fn gemm_of_split(
#end
#if kind == 2
fn gemm_with_bias(
#end
    at: Invocation,
#if MATRIX
    @builtin(subgroup_id) subgroup: u32,
#end
) {
    let sizes = vec3u(params.m, params.n, params.k);
    let per_split = params.terms_per_split;
#import tile_place
    let a_from = params.a_offset;
    let b_by_terms = params.b_by_terms != 0u;
    let b_lane = lane - ${LANES - COLUMNS}u;
    let b_quad = select(b_lane / 4u, b_lane % ${COLUMNS / 4}u, b_by_terms);
    let b_term = select(b_lane % 4u, b_lane / ${COLUMNS / 4}u, b_by_terms) * 4u;
    let b_column = min(first_column + b_quad * 4u, params.n - 1u) / ${WIDTH}u * ${WIDTH}u;
    let b_image = select(0u, b_column / params.plane, b_by_terms);
    let b_element = b_column - b_image * params.plane;
    let b_from = params.b_offset + b_image * params.b_image;
    let b_lines = select(params.n, params.k, b_by_terms);
    let b_last = select(params.k, params.plane, b_by_terms) - 1u;
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
            let term = first + block * 16u;
#import tile_load_a
            if lane >= ${LANES - COLUMNS}u {
                let own = term + b_term;
                let line = select(b_element, own, b_by_terms);
                let element = select(own, b_element, b_by_terms);
#for i in 0..4
                part${PART}[${i}] = load_b(b_from + min(line + ${i}u, b_lines - 1u) * params.b_stride, element, b_last);
#end
                if !b_by_terms {
                    part${PART} = transpose(part${PART});
                }
#for i in 0..4
                part${PART}[${i}] = select(Four(0.0), part${PART}[${i}], own + ${i}u < end);
#end
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
#if kind == 1
        let base = split * params.m * params.n;
#else
        let base = params.c_offset;
#end
#import tile_results
    }
}

#end
