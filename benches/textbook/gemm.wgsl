// C = A B as textbooks teach it, for the benchmark to compare with; the library has its own (shaders/gemm.wgsl).
//
//   a  [n, n]
//   b  [n, n]
//   c  [n, n]   n is a multiple of 64
//
// A workgroup of 16 x 16 makes a 64 x 64 tile of C, an invocation 4 x 4 elements of it. For each 16 terms of the sum
// the workgroup copies its parts of A and B into workgroup memory.

struct Params {
    n: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> a: array<f32>;
@group(0) @binding(2) var<storage, read> b: array<f32>;
@group(0) @binding(3) var<storage, read_write> c: array<f32>;

const SIDE: u32 = 64;
const TERMS: u32 = 16;

var<workgroup> a_tile: array<f32, SIDE * TERMS>;
var<workgroup> b_tile: array<f32, SIDE * TERMS>;

@compute @workgroup_size(16, 16)
fn gemm(
    @builtin(workgroup_id) group: vec3u,
    @builtin(local_invocation_id) local: vec3u,
    @builtin(local_invocation_index) lane: u32,
) {
    let n = params.n;
    var sum: array<array<f32, 4>, 4>;
    for (var first = 0u; first < n; first += TERMS) {
        for (var i = lane; i < SIDE * TERMS; i += 256u) {
            a_tile[i] = a[(group.y * SIDE + i / TERMS) * n + first + i % TERMS];
            b_tile[i] = b[(first + i / SIDE) * n + group.x * SIDE + i % SIDE];
        }
        workgroupBarrier();
        for (var k = 0u; k < TERMS; k++) {
            var left: array<f32, 4>;
            var right: array<f32, 4>;
            for (var i = 0u; i < 4u; i++) {
                left[i] = a_tile[(local.y * 4u + i) * TERMS + k];
                right[i] = b_tile[k * SIDE + local.x * 4u + i];
            }
            for (var i = 0u; i < 4u; i++) {
                for (var j = 0u; j < 4u; j++) {
                    sum[i][j] += left[i] * right[j];
                }
            }
        }
        workgroupBarrier();
    }
    for (var i = 0u; i < 4u; i++) {
        for (var j = 0u; j < 4u; j++) {
            c[(group.y * SIDE + local.y * 4u + i) * n + group.x * SIDE + local.x * 4u + j] = sum[i][j];
        }
    }
}
