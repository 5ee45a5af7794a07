//! Prints the rank that the launcher assigned:
//! `mpirun -n 2 cargo run --release -p vgg-distributed --example launch`

fn main() -> Result<(), vgg_distributed::Error> {
    match vgg_distributed::Launch::from(&|name| std::env::var(name).ok())? {
        Some(launch) => println!("{:?}: rank {} of {}", launch.launcher, launch.rank, launch.size),
        None => println!("no launcher: a single process"),
    }
    Ok(())
}
