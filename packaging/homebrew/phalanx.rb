# For a tap, with the version and the checksum of the release (SHA256SUMS).
class Phalanx < Formula
  desc "Puts any server on every core, and never drops a request"
  homepage "https://github.com/phalanx-rs/phalanx"
  version "0.1.0"
  license any_of: ["MIT", "Apache-2.0"]
  depends_on :linux

  on_intel do
    url "https://github.com/phalanx-rs/phalanx/releases/download/v#{version}/phalanx-#{version}-x86_64-linux.tar.gz"
    sha256 "0000000000000000000000000000000000000000000000000000000000000000"
  end

  def install
    bin.install "phalanx"
    man1.install Dir["man/*.1.gz"]
    bash_completion.install "completions/phalanx.bash" => "phalanx"
    zsh_completion.install "completions/phalanx.zsh" => "_phalanx"
    fish_completion.install "completions/phalanx.fish"
  end

  test do
    assert_match version.to_s, shell_output("#{bin}/phalanx --version")
  end
end
