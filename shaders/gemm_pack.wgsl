// Copies operands to the layout that the matrix products and convolutions read.
//
//   packed[row, column] = source[offset + (row / inner) outer_stride + (row % inner) inner_stride
//                                + column column_stride] for column < columns, otherwise 0
//
//   source  a part of any float tensor; the f16 variant packs f16 to f16
//   packed  [rows, 4 vectors]: rows run along the index of the sum (k; or channel and tap; or image
//           and pixel), columns along the index of the result. Columns are padded to whole tiles,
//           so that a kernel loads vec4s without checks.
//
// Each invocation computes one vec4 of packed. A workgroup of 256 covers 32 rows x 8 vec4s, with
// neighbours along the rows, which are contiguous in the source in a transposition.

#f16

#if F16
enable f16;
#end

#import grid
#import real

struct Params {
    rows: u32,
    columns: u32,
    // vec4s per packed row.
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
