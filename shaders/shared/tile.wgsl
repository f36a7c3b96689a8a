// Tiles of both factors of a product C = A B in workgroup memory.
//
// A workgroup of LANES computes ROWS x COLUMNS elements of C. A block is 16 terms of the sum. Its
// tile of A is [16, ROWS] and its tile of B [16, COLUMNS], in vec4s along the rows and columns of
// C. There are two halves: while one is multiplied, the next block is loaded into registers, and
// then stored to the other half. So there is one barrier per block, and the latency of the loads
// overlaps the products.
//
// Lanes load A into part0 and B into part PART. That is part0 too if no lane loads both, since a
// lane has few registers to spare for loads.
//
//   tile      ROWS x COLUMNS  lanes  workgroup bytes  sums per lane  block: FLOPs  bytes (f16)
//   64x64     64 x 64         128    16,384           32             131,072       8,192 (4,096)
//   64x128    64 x 128        128    24,576           64             262,144       12,288 (6,144)
//   128x128   128 x 128       256    32,768           64             524,288       16,384 (8,192)
//   matrix8   32 x 32         32     7,680            32             32,768        4,096 (2,048)
//   matrix16  128 x 128       128    34,816           128            524,288       16,384 (8,192)
//
// A sum takes a register. In matrix8 and matrix16, the loads of a block take 16 more. The last
// column has the bytes that a workgroup reads, with f32 and with f16 operands. The speed on a
// hardware GPU is not measured.
#if MATRIX
//
// The products are those of cooperative matrices of MATRIX x MATRIX, of f16 factors with f32 sums.
// f32 factors are rounded to f16 as they are loaded. The workgroup has 2 x 2 subgroups, and each of
// them computes ROWS / 2 x COLUMNS / 2 elements of C. Rows of tiles are padded by eight elements,
// so that they start in different banks. Sums leave the matrices through workgroup memory, MATRIX
// rows of each subgroup at a time.
//
// Bytes of workgroup memory: 64 (ROWS + COLUMNS + 16) + 16 MATRIX (COLUMNS / 2 + 4).
alias Four = vec4<f16>;
alias Part = mat4x4<f16>;
alias MatrixA = coop_mat${MATRIX}x${MATRIX}<f16, A>;
alias MatrixB = coop_mat${MATRIX}x${MATRIX}<f16, B>;
alias MatrixC = coop_mat${MATRIX}x${MATRIX}<f32, C>;

var<workgroup> a_tile: array<Four, ${8 * (ROWS + 8)}>;
var<workgroup> b_tile: array<Four, ${8 * (COLUMNS + 8)}>;
var<workgroup> c_tile: array<f32, ${4 * MATRIX * (COLUMNS / 2 + 4)}>;

// The index of four rows of one term in a_tile.
fn a_at(half: u32, term: u32, quad: u32) -> u32 {
    return (half * 16u + term) * ${(ROWS + 8) / 4}u + quad;
}

// The index of four columns of one term in b_tile.
fn b_at(half: u32, term: u32, quad: u32) -> u32 {
    return (half * 16u + term) * ${(COLUMNS + 8) / 4}u + quad;
}
#else
//
// A lane computes 8 rows x 4 QUADS columns: the rows 4 row_quad .. + 4 and ROWS / 2 + 4 row_quad ..
// + 4, and the columns 4 column_quad .. + 4 (and 64 + 4 column_quad .. + 4). 32 neighbouring lanes
// are 4 quads of rows x 8 quads of columns, so the addresses that they load are few.
//
// The vec4 with index q of term k is stored at q ^ (k / 4 * 2). The lanes that store one transposed
// vec4 each, of four terms, then use all banks, as if rows were padded, but without the memory.
//
// Bytes of workgroup memory: 128 (ROWS + COLUMNS).
alias Four = vec4f;
alias Part = mat4x4f;

var<workgroup> a_tile: array<Four, ${8 * ROWS}>;
var<workgroup> b_tile: array<Four, ${8 * COLUMNS}>;

fn row_quad(lane: u32) -> u32 {
    return lane / 64u * 4u + lane / 8u % 4u;
}

fn column_quad(lane: u32) -> u32 {
    return lane / 32u % 2u * 8u + lane % 8u;
}

// The index of four rows of one term in a_tile.
fn a_at(half: u32, term: u32, quad: u32) -> u32 {
    return (half * 16u + term) * ${ROWS / 4}u + (quad ^ (term / 4u * 2u));
}

// The index of four columns of one term in b_tile.
fn b_at(half: u32, term: u32, quad: u32) -> u32 {
    return (half * 16u + term) * ${COLUMNS / 4}u + (quad ^ (term / 4u * 2u));
}
#end
