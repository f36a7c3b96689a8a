// C = A B (+ bias), for all four transpositions, with tiles of both factors in workgroup memory.
// Tensors and parameters are those of gemm.wgsl.
//
// Tile: a workgroup of 128 holds 64 rows x 128 columns of C, and an invocation 8 x 8 of them in
// registers. The sum advances by 16 terms at a time: the workgroup copies 16 x 64 elements of A and
// 16 x 128 of B to workgroup memory, two and four vec4s per invocation, and neighbours load
// neighbouring vec4s. Then each term costs an invocation four loads of a vec4 for 64 multiply-adds.
// The columns of an invocation are vec4s 16 apart, so neighbours read neighbouring vec4s of B. Rows
// of the staged tiles are padded by one vec4 (to 17 and 33), so consecutive terms start in
// different banks. 12,800 bytes of workgroup memory.
//
// One workgroup per tile, row tiles fastest, so workgroups that run together share columns of B. If
// K is sliced, `accumulate` adds to C. The order of the sum is k = 0, 1, ... for each element.
// Beyond the last term, both tiles are 0.
//
// For lower bounds of the time, see gemm.wgsl. The speed on a hardware GPU is not measured.
#variant plain BIAS=0
#variant bias BIAS=1

#import grid
#import gemm_params

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> a: array<vec4f>;
@group(0) @binding(2) var<storage, read> b: array<vec4f>;
#if BIAS
@group(0) @binding(3) var<storage, read> bias: array<f32>;
#end
@group(0) @binding(4) var<storage, read_write> c: array<f32>;

// 16 terms with 16 vec4s (64 rows) and 32 vec4s (128 columns), each padded by one vec4.
var<workgroup> a_tile: array<vec4f, 272>;
var<workgroup> b_tile: array<vec4f, 528>;

@compute @workgroup_size(128)
fn gemm(at: Invocation) {
    let row_tiles = (params.m + 63u) / 64u;
    let tile = workgroup_index(at);
    let first_row = tile % row_tiles * 64u;
    // Surplus workgroups beyond the last tile repeat its columns and store nothing.
    let first_vector = tile / row_tiles * 32u;
    let last_vector = (params.n - 1u) / 4u;
    // This invocation copies one vec4 of every eighth term of A, and of every fourth term of B.
    let a_vector = at.lane % 16u;
    let a_term = at.lane / 16u;
    let b_vector = at.lane % 32u;
    let b_term = at.lane / 32u;
    let a_from = params.a_offset + first_row / 4u + a_vector;
    let b_from = params.b_offset + min(first_vector + b_vector, last_vector);
    // It computes eight rows of the columns in vec4s `vector` and `vector + 16`.
    let rows = at.lane / 16u * 2u;
    let vector = at.lane % 16u;
#for r in 0..8
#for v in 0..2
    var sum${r}_${v} = vec4f(0.0);
#end
#end
    for (var first = 0u; first < params.k; first += 16u) {
#for i in 0..2
        let a_k${i} = first + a_term + ${8 * i}u;
        var a_value${i} = vec4f(0.0);
        if a_k${i} < params.k {
            a_value${i} = a[a_from + a_k${i} * params.a_term];
        }
#end
#for i in 0..4
        let b_k${i} = first + b_term + ${4 * i}u;
        var b_value${i} = vec4f(0.0);
        if b_k${i} < params.k {
            b_value${i} = b[b_from + b_k${i} * params.b_term];
        }
#end
        // Until here, other invocations may read the previous tiles.
        workgroupBarrier();
#for i in 0..2
        a_tile[(a_term + ${8 * i}u) * 17u + a_vector] = a_value${i};
#end
#for i in 0..4
        b_tile[(b_term + ${4 * i}u) * 33u + b_vector] = b_value${i};
#end
        workgroupBarrier();
        for (var k = 0u; k < 16u; k++) {
#for q in 0..2
            let left${q} = a_tile[k * 17u + rows + ${q}u];
#end
#for v in 0..2
            let right${v} = b_tile[k * 33u + vector + ${16 * v}u];
#end
#for r in 0..8
#for v in 0..2
            sum${r}_${v} = fma(vec4f(left${r / 4}[${r % 4}]), right${v}, sum${r}_${v});
#end
#end
        }
    }

#for v in 0..2
    let n${v} = (first_vector + vector + ${16 * v}u) * 4u;
#if BIAS
    if params.accumulate == 0u {
#for i in 0..4
        let bias${i} = bias[params.column + min(n${v} + ${i}u, params.n - 1u)];
#end
        let shift = vec4f(bias0, bias1, bias2, bias3);
#for r in 0..8
        sum${r}_${v} += shift;
#end
    }
#end
#for r in 0..8
    if first_row + rows * 4u + ${r}u < params.m {
        let c_at = params.c_offset + (first_row + rows * 4u + ${r}u) * params.c_stride + params.column + n${v};
#for i in 0..4
        if n${v} + ${i}u < params.n {
            c[c_at + ${i}u] = select(0.0, c[c_at + ${i}u], params.accumulate != 0u) + sum${r}_${v}[${i}];
        }
#end
    }
#end
#end
}
