# A Node server under phalanx, for Nomad. docs/kubernetes.md says why each line is there; Nomad's words for them are these.
job "shop" {
  type = "service"

  update {
    max_parallel      = 1
    canary            = 1
    health_check      = "checks"
    min_healthy_time  = "5s"
    healthy_deadline  = "2m"
    auto_promote      = true
    auto_revert       = true
  }

  group "shop" {
    count = 2

    network {
      port "http" { to = 3000 }
      port "metrics" { to = 9464 }
    }

    service {
      name = "shop"
      port = "http"

      check {
        type     = "http"
        port     = "metrics"
        path     = "/readyz"
        interval = "2s"
        timeout  = "1s"
      }
    }

    task "server" {
      driver = "docker"

      # Nomad takes the service out of the catalogue and then waits, so --pre-stop-delay is not needed here.
      shutdown_delay = "5s"
      kill_signal    = "SIGTERM"
      kill_timeout   = "45s"

      config {
        image   = "registry.example/shop:1.0.0"
        command = "phalanx"
        args    = ["run", "--name=shop", "--metrics=0.0.0.0:9464", "--drain-timeout=30s", "--max-memory=80%", "server.js"]
        ports   = ["http", "metrics"]
      }

      resources {
        cores  = 2
        memory = 1024
      }
    }
  }
}
