// Tiles of both factors of a product C = A B in workgroup memory.
//
// A workgroup of LANES computes ROWS x COLUMNS elements of C, and a lane 8 rows x 4 QUADS columns:
// the rows 4 row_quad .. + 4 and ROWS / 2 + 4 row_quad .. + 4, and the columns 4 column_quad .. + 4
// (and 64 + 4 column_quad .. + 4). 32 neighbouring lanes are 4 quads of rows x 8 quads of columns,
// so the addresses that they load are few.
//
// A block is 16 terms of the sum. Its tile of A is [16, ROWS] and its tile of B [16, COLUMNS], in
// vec4s along the rows and columns of C. There are two halves: while one is multiplied, the next
// block is loaded into registers, and then stored to the other half. So there is one barrier per
// block, and the latency of the loads overlaps the products.
//
// Lanes load A into part0 and B into part PART. That is part0 too if no lane loads both, since a lane
// has few registers to spare for loads.
//
// The vec4 with index q of term k is stored at q ^ (k / 4 * 2). The lanes that store one transposed
// vec4 each, of four terms, then use all banks, as if rows were padded, but without the memory.
//
// Bytes of workgroup memory: 128 (ROWS + COLUMNS).
var<workgroup> a_tile: array<vec4f, ${8 * ROWS}>;
var<workgroup> b_tile: array<vec4f, ${8 * COLUMNS}>;

fn row_quad(lane: u32) -> u32 {
    return lane / 64u * 4u + lane / 8u % 4u;
}

fn column_quad(lane: u32) -> u32 {
    return lane / 32u % 2u * 8u + lane % 8u;
}
