// One term of the tiled products: sum{r}_{v} += left[r] right{v}, for ROWS x VECTORS sums of four elements each.
// left{q} has four left factors, which are the same for the whole workgroup; right{v} has four right factors.
//
// The columns of one v come first, all its rows, then those of the next: its right factors stay in registers meanwhile.
#for v in 0..VECTORS
#for r in 0..ROWS
#if v == 0
    let factor${r} = vec4f(left${r / 4}[${r % 4}]);
#end
    sum${r}_${v} = fma(factor${r}, right${v}, sum${r}_${v});
#end
#end
