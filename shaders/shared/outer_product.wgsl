// The inner step of the tiled products: sum{r}_{v} += left[r] right{v}, for ROWS x VECTORS sums of four elements each. The
// left factors are the same for the whole workgroup. `load_left` of the importing shader loads four of them from
// `left_at` on, or, with SUBGROUP, one for each invocation of a subgroup of eight, which is handed round.
#if SUBGROUP
#for q in 0..ROWS/8
    let left${q} = load_left(left_at + ${8 * q}u);
#for r in 0..8
    let factor${8 * q + r} = vec4f(subgroupBroadcast(left${q}, ${r}u));
#for v in 0..VECTORS
    sum${8 * q + r}_${v} = fma(factor${8 * q + r}, right${v}, sum${8 * q + r}_${v});
#end
#end
#end
#else
#for q in 0..ROWS/4
    let left${q} = load_left(left_at + ${q}u);
#for r in 0..4
#for v in 0..VECTORS
    sum${4 * q + r}_${v} = fma(vec4f(left${q}[${r}]), right${v}, sum${4 * q + r}_${v});
#end
#end
#end
#end
