// The inner step of the tiled products: sum{r}_{v} += left[r] right{u}_{v} for UNROLL terms u of the sum, one after the
// other, and ROWS x VECTORS sums of four elements each. The left factors are the same for the whole workgroup:
// left{u}_{q} has four of them, or, with SUBGROUP, one for each invocation of a subgroup of SUBGROUP, which is handed
// round.
//
// The columns of one v come first, all its rows, then those of the next: its right factors stay in registers meanwhile.
//
// The importing shader loads all factors before: on a processor each load is a dozen branches, and a compiler that
// finds sums between them keeps the products in memory.
#for v in 0..VECTORS
#for r in 0..ROWS
#for u in 0..UNROLL
#if v == 0
#if SUBGROUP
    let factor${u}_${r} = vec4f(subgroupBroadcast(left${u}_${r / SUBGROUP}, ${r % SUBGROUP}u));
#else
    let factor${u}_${r} = vec4f(left${u}_${r / 4}[${r % 4}]);
#end
#end
    sum${r}_${v} = fma(factor${u}_${r}, right${u}_${v}, sum${r}_${v});
#end
#end
#end
