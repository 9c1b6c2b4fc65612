import type { Command } from 'commander'
import { checked, collect, newCommand } from './command.ts'
import { type DaemonFlags, parseDaemonFlags } from './daemon-flags.ts'

/** `skep daemon`. */
export function buildCommand(): Command {
  return newCommand('daemon', 'Run this node: its agent, and a manager where it has that role')
    .option('--data-root <dir>', 'State that survives a reboot (default: /var/lib/skep)')
    .option('--run-dir <dir>', 'Sockets and what else does not have to (default: /run/skep)')
    .option(
      '-H, --host <address>',
      'Serve the Engine API here; may be repeated (default: unix://<run-dir>/docker.sock)',
      collect,
    )
    .option('--tls-ca <file>', 'CA of the clients that tcp:// hosts let in (PEM)')
    .option('--tls-cert <file>', 'Certificate of tcp:// hosts (PEM)')
    .option('--tls-key <file>', 'Its private key (PEM)')
    .option('--socket-group <group>', 'Group that may use unix sockets (default: docker)')
    .option('--engine <address>', 'The local engine (default: unix:///var/run/docker.sock)')
    .option('--listen-addr <host:port>', 'Cluster port (default: 0.0.0.0:2377)')
    .option(
      '--advertise-addr <address>',
      'What other nodes reach this one by, <ip>[:port] or <interface>, if it is not found or has changed',
    )
    .option(
      '--manager <host[:port]>',
      'Ask this manager, too, where those known have other addresses by now; may be repeated',
      collect,
    )
    .option(
      '--http <host:port>',
      "Metrics and health; '' switches it off (default: 127.0.0.1:7780)",
    )
    .option('--log-level <level>', 'debug, info, warn or error (default: info)')
    .action(async (flags: DaemonFlags) => {
      const options = checked(() => parseDaemonFlags(flags))
      const { runDaemon } = await import('../daemon/daemon.ts')
      await runDaemon(options)
    })
}
