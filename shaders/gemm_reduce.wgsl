// Adds partial sums of a tiled product, in order: the last step if its terms are split.
//
//   c[m, n] = sum over splits s of partials[s, m, n] (+ bias[n]); added to c if `accumulate`
//
//   partials  [splits, M, N]
//   bias      [N] from bias_offset on, added unless `accumulate` (reduce_with_bias)
//   c         element (m, n) at c_offset + m c_row + (n / plane) c_image + (n % plane) c_column
//
// An invocation computes one element, or four neighbouring columns in the variant vectors, which
// requires c_column = 1 and N and planes of whole vec4s. Workgroups of 256. The f16 variants have
// f16 c. Bytes: 4 splits M N read and 4 (f16: 2) M N written; splits M N FLOPs.
#variant elements WIDTH=1
#variant vectors WIDTH=4

#f16

#if F16
enable f16;
#end

#import grid
#import real

#if WIDTH == 1
alias Stored = real;
alias Sums = f32;
#else
alias Stored = real4;
alias Sums = vec4f;
#end

struct Params {
    // In units of WIDTH elements: N, and columns per plane.
    n: u32,
    plane: u32,
    // M N, in units of WIDTH elements.
    elements: u32,
    splits: u32,
    c_offset: u32,
    c_row: u32,
    c_image: u32,
    c_column: u32,
    // The first element of the bias.
    bias_offset: u32,
    accumulate: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> partials: array<Sums>;
@group(0) @binding(2) var<storage, read_write> c: array<Stored>;
#if F16 == 0
@group(0) @binding(3) var<storage, read> bias: array<f32>;
#end

#for with_bias in 0..2 - F16
@compute @workgroup_size(256)
#if with_bias
fn reduce_with_bias(at: Invocation) {
#else
fn reduce(at: Invocation) {
#end
    let index = index256(at);
    if index >= params.elements {
        return;
    }
    var sum = Sums(0.0);
    for (var split = 0u; split < params.splits; split++) {
        sum += partials[split * params.elements + index];
    }
    let m = index / params.n;
    let n = index - m * params.n;
    let image = n / params.plane;
    let column = n - image * params.plane;
    let to = (params.c_offset + m * params.c_row + image * params.c_image) / ${WIDTH}u + column * params.c_column;
    if params.accumulate != 0u {
        sum += Sums(c[to]);
    }
#if with_bias
    if params.accumulate == 0u {
#for i in 0..WIDTH
        let bias${i} = bias[params.bias_offset + n * ${WIDTH}u + ${i}u];
#end
#if WIDTH == 1
        sum += bias0;
#else
        sum += vec4f(bias0, bias1, bias2, bias3);
#end
    }
#end
    c[to] = Stored(sum);
}
#end
