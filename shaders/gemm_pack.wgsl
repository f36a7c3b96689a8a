// Copies of operands into the layout that the matrix products and convolutions read.
//
//   packed[row, column]
//     = source[offset + (row / inner) outer_stride + (row % inner) inner_stride + column column_stride]
//       for column < columns, 0 for the padding behind it
//
//   source  part of any float tensor; the twin for f16 packs f16 into f16
//   packed  [rows, 4 vectors]: rows run along the sum's index (k; or channel and tap; or image and pixel), columns
//           along the index of the result, padded to a whole tile, so that a kernel loads four of them as one vec4 and
//           needs no guard
//
// One vec4 of packed an invocation. A workgroup of 256 covers 32 rows x 8 vec4s, neighbours along the rows, which are
// contiguous in the source wherever this is a transposition. Floor: 8 bytes an element over the bandwidth; the product
// that follows does hundreds of FLOPs with each.

#f16

#if F16
enable f16;
#end

#import grid
#import real

struct Params {
    rows: u32,
    columns: u32,
    // vec4s of a packed row
    vectors: u32,
    inner: u32,
    offset: u32,
    outer_stride: u32,
    inner_stride: u32,
    column_stride: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> source: array<real>;
@group(0) @binding(2) var<storage, read_write> packed: array<real4>;

@compute @workgroup_size(256)
fn pack(at: Invocation) {
    let tiles = (params.vectors + 7u) / 8u;
    let tile = workgroup_index(at);
    let row = tile / tiles * 32u + at.lane % 32u;
    let vector = tile % tiles * 8u + at.lane / 32u;
    if row >= params.rows || vector >= params.vectors {
        return;
    }
    let start = params.offset + row / params.inner * params.outer_stride + row % params.inner * params.inner_stride;
    var value = real4(0.0);
#for i in 0..4
    if vector * 4u + ${i}u < params.columns {
        value[${i}] = source[start + (vector * 4u + ${i}u) * params.column_stride];
    }
#end
    packed[row * params.vectors + vector] = value;
}
