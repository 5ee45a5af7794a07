//! Which rank this process is, by its launcher: `mpirun -n 2 cargo run --release -p vgg-distributed --example launch`

fn main() -> Result<(), vgg_distributed::Error> {
    match vgg_distributed::Launch::from(&|name| std::env::var(name).ok())? {
        Some(launch) => println!("{:?}: rank {} of {}", launch.launcher, launch.rank, launch.size),
        None => println!("a process on its own"),
    }
    Ok(())
}
