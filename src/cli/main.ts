import packageJson from '../../package.json' with { type: 'json' }

/** `skep`, as it is started. Asking for the version loads nothing else; a command loads its own group only. */
const args = process.argv.slice(2)
// Whoever reads may stop reading (`skep … | head`): then there is nothing left to say.
process.stdout.on('error', (error) => {
  if ('code' in error && error.code === 'EPIPE') process.exit(0)
  throw error
})
if (args.length === 1 && (args[0] === '--version' || args[0] === '-v')) {
  process.stdout.write(`Skep version ${packageJson.version}\n`)
} else {
  const [{ runCommandLine }, { realIo }] = await Promise.all([
    import('./program.ts'),
    import('./io.ts'),
  ])
  process.exitCode = await runCommandLine(args, realIo())
}
