import { chmod, mkdir, readFile, writeFile } from 'node:fs/promises'
import { join, resolve } from 'node:path'
import { messageOf, UserError } from '../base/index.ts'
import { version } from '../daemon/version.ts'
import { type AddCommand, absolute } from './compose-files.ts'

const mark = '# Runs skep compose. Made by skep compose install-alias.'

/**
 * A program that is both: `docker-compose`, and the plugin behind `docker compose`. The docker CLI asks a plugin for its metadata, and
 * then runs it with the whole command line: flags of docker, the word `compose`, the rest.
 */
export function aliasScript(skep: string, shownVersion: string): string {
  const metadata = JSON.stringify({
    SchemaVersion: '0.1.0',
    Vendor: 'Skep',
    Version: `v${shownVersion}`,
    ShortDescription: 'Compose, by Skep',
  })
  return `#!/bin/sh
${mark}
if [ "\${1-}" = docker-cli-plugin-metadata ]; then
  echo '${metadata}'
  exit 0
fi
case " $* " in
  *' compose '*)
    if [ -n "\${DOCKER_CLI_PLUGIN_ORIGINAL_CLI_COMMAND-}" ]; then
      host=
      while [ $# -gt 0 ]; do
        case $1 in
          compose) shift; break ;;
          -H | --host) host=$2; shift 2 ;;
          -H=* | --host=*) host=\${1#*=}; shift ;;
          -c | --context) DOCKER_CONTEXT=$2; unset DOCKER_HOST; export DOCKER_CONTEXT; shift 2 ;;
          --context=*) DOCKER_CONTEXT=\${1#*=}; unset DOCKER_HOST; export DOCKER_CONTEXT; shift ;;
          --config) DOCKER_CONFIG=$2; export DOCKER_CONFIG; shift 2 ;;
          --config=*) DOCKER_CONFIG=\${1#*=}; export DOCKER_CONFIG; shift ;;
          *) shift ;;
        esac
      done
      if [ -n "$host" ]; then DOCKER_HOST=$host; export DOCKER_HOST; fi
    fi
    ;;
esac
exec ${quoted(skep)} compose "$@"
`
}

function quoted(path: string): string {
  return `'${path.replaceAll("'", `'\\''`)}'`
}

export const addInstallCommand: AddCommand = (parent, { io }) => {
  parent
    .command('install-alias')
    .description('Install docker-compose, and the plugin of docker for docker compose')
    .option('--to <directory>', 'Only here; else beside docker’s plugins and in a bin directory')
    .option('--force', 'Replace another program of that name')
    .action(async ({ to, force }: { to?: string; force?: boolean }) => {
      const home = io.env['HOME'] ?? '/root'
      const plugins = join(io.env['DOCKER_CONFIG'] ?? join(home, '.docker'), 'cli-plugins')
      const bin = process.getuid?.() === 0 ? '/usr/local/bin' : join(home, '.local/bin')
      const folders = to === undefined ? [plugins, bin] : [absolute(io, to)]
      const skep = resolve(import.meta.dirname, programPath())
      for (const folder of folders) {
        const path = join(folder, 'docker-compose')
        await install(path, aliasScript(skep, version), force === true)
        io.stdout.write(`${path}\n`)
      }
      const isOnPath = (io.env['PATH'] ?? '').split(':').includes(folders.at(-1) ?? '')
      if (to === undefined && !isOnPath) {
        io.stderr.write(
          `skep: warning: ${bin} is not in PATH, so docker-compose is not found by name\n`,
        )
      }
    })
}

/** From the source's folder, or the bundle's, to the program that starts either. */
function programPath(): string {
  return import.meta.dirname.endsWith('/src/cli') ? '../../bin/skep' : '../bin/skep'
}

async function install(path: string, script: string, force: boolean): Promise<void> {
  const before = await readFile(path, 'utf8').catch(() => undefined)
  if (before !== undefined && !before.includes(mark) && !force) {
    throw new UserError('conflict', `${path} is another program`, {
      next: 'Replace it with --force, or choose another directory with --to.',
    })
  }
  try {
    await mkdir(resolve(path, '..'), { recursive: true })
    await writeFile(path, script, { mode: 0o755 })
    await chmod(path, 0o755)
  } catch (cause) {
    throw new UserError('forbidden', `cannot write ${path}: ${messageOf(cause)}`, {
      next: 'Choose a directory of your own with --to.',
      cause,
    })
  }
}
