//! Measures all-reduce: `mpirun -n 2 cargo run --release -p vgg-distributed --features mpi --example
//! sum_speed`
//!
//! The GB/s are the rates of `vgg_distributed::Cluster`: bytes that a rank sends, `2 (n - 1) / n` of the
//! values.

use std::time::Instant;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let group = vgg_distributed::join(|lost| panic!("{lost}"))?.group;
    let n = group.size() as f64;
    for mib in [1_u32, 4, 16, 64] {
        let mut values = vec![1.0_f32; (mib as usize) << 18];
        let mut seconds: Vec<f64> = Vec::new();
        for _ in 0..11 {
            group.barrier()?;
            let start = Instant::now();
            group.all_reduce(&mut values)?;
            seconds.push(start.elapsed().as_secs_f64());
            values.fill(1.0);
        }
        seconds.sort_by(f64::total_cmp);
        let median = seconds[seconds.len() / 2];
        if group.rank() == 0 {
            let sent = 2.0 * (n - 1.0) / n * f64::from(mib) * 1_048_576.0;
            println!("{mib} MiB over {n} ranks: {:.2} ms, {:.2} GB/s", 1e3 * median, sent / median / 1e9);
        }
    }
    Ok(())
}
