//! The command line.
/// Runs the face that the program's name selects.
pub fn main() -> std::process::ExitCode {
    std::process::ExitCode::SUCCESS
}
