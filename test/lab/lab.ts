/** The lab for people: `node test/lab/lab.ts up 3`. See docs/lab.md. */
import { spawn } from 'node:child_process'
import { attachLab, type Lab, labNumbers, openLab, reapLabs } from './open-lab.ts'

const usage = `node test/lab/lab.ts [--lab NUMBER] COMMAND
  up N [--daemons] [--image IMAGE]...   start a lab of N hosts; it stays until \`down\`
  down [all]                            end the lab (all: every lab) and remove what it made
  status                                labs, hosts, addresses, sockets
  exec HOST COMMAND...                  run a program on a host
  docker HOST ARGS...                   docker client against the host's engine
  skep-docker HOST ARGS...              docker client against the host's skep daemon
  daemon HOST start|stop|kill|pause|resume [FLAGS...]
  engine HOST start|stop|kill
  power HOST off|on|pause|resume
  cut HOST [HOST]                       nothing passes between it and all others, or between the two
  cut-one-way FROM|any TO|any           frames are lost one way
  heal [HOST]                           mend all cuts, or those of a host
  delay HOST MS [LOSS_PERCENT] [JITTER_MS]   each way; 0 ends it
  load HOST IMAGE...                    copy images of the machine's shared engine
Without --lab it is the only lab there is.`

/** Resolves with the exit code. */
async function runLabCommand(words: readonly string[]): Promise<number> {
  const chosen = words[0] === '--lab' ? Number(words[1]) : undefined
  const [command = 'help', ...args] = chosen === undefined ? words : words.slice(2)
  try {
    return await act(command, args, chosen)
  } catch (error) {
    console.error(`lab: ${error instanceof Error ? error.message : String(error)}`)
    return 1
  }
}

async function act(
  command: string,
  args: readonly string[],
  chosen: number | undefined,
): Promise<number> {
  if (command === 'up') return await up(args)
  if (command === 'status') return await status()
  if (command === 'down' && args[0] === 'all') {
    for (const number of labNumbers()) await attachLab(number).down()
    return 0
  }
  const numbers = labNumbers()
  if (chosen === undefined && numbers.length > 1 && command !== 'help') {
    throw new Error(`there are labs ${numbers.join(', ')}: say which with --lab NUMBER`)
  }
  const number = chosen ?? numbers.at(-1)
  if (command === 'help' || number === undefined) {
    console.log(number === undefined && command !== 'help' ? 'no lab is up' : usage)
    return command === 'help' ? 0 : 1
  }
  return await actOn(attachLab(number), command, args)
}

async function up(args: readonly string[]): Promise<number> {
  await reapLabs()
  const hosts = Number(args[0] ?? '3')
  if (!Number.isInteger(hosts) || hosts < 1 || hosts > 250) throw new Error('up N: from 1 to 250')
  const images = args.flatMap((word, index) => (args[index - 1] === '--image' ? [word] : []))
  const lab = await openLab({
    hosts,
    isKept: true,
    daemons: args.includes('--daemons'),
    ...(images.length > 0 ? { images } : {}),
  })
  console.log(`lab ${lab.number} is up`)
  return await status()
}

async function status(): Promise<number> {
  for (const number of labNumbers()) {
    console.log(`lab ${number}`)
    for (const host of attachLab(number).hosts) {
      const state = host.isOn ? (host.isDaemonRunning ? 'on, daemon' : 'on') : 'off'
      console.log(`  ${host.number} ${host.address} ${state}\n    engine ${host.engine}`)
      if (host.isDaemonRunning) console.log(`    skep   ${host.api}`)
    }
  }
  return 0
}

async function actOn(lab: Lab, command: string, args: readonly string[]): Promise<number> {
  const end = (text: string | undefined) => (text === 'any' ? 'any' : Number(text))
  if (command === 'down') await lab.down()
  else if (command === 'heal') await lab.heal(args[0] === undefined ? undefined : Number(args[0]))
  else if (command === 'cut') await lab.cut(Number(args[0]), end(args[1] ?? 'any'))
  else if (command === 'cut-one-way') await lab.cutOneWay(end(args[0]), end(args[1]))
  else if (command === 'delay') {
    const [host, delayMs, lossPercent = 0, jitterMs = 0] = args.map(Number)
    const isSet = (delayMs ?? 0) > 0 || lossPercent > 0
    await lab.delay(host ?? 0, isSet ? { delayMs: delayMs ?? 0, lossPercent, jitterMs } : undefined)
  } else return await actOnHost(lab, command, args)
  return 0
}

async function actOnHost(lab: Lab, command: string, args: readonly string[]): Promise<number> {
  const host = lab.host(Number((args[0] ?? '').replace(/^node/, '')))
  const [verb = '', ...rest] = args.slice(1)
  switch (`${command} ${['power', 'engine', 'daemon'].includes(command) ? verb : ''}`.trim()) {
    case 'exec':
      return await interact([...host.inside(), verb, ...rest])
    case 'docker':
      return await interact(['docker', '-H', host.engine, verb, ...rest])
    case 'skep-docker':
      return await interact(['docker', '-H', host.api, verb, ...rest])
    case 'load':
      await host.loadImages(verb, ...rest)
      return 0
    case 'daemon start':
      await host.startDaemon(rest)
      return 0
    case 'daemon stop':
      await host.stopDaemon('SIGTERM')
      return 0
    case 'daemon kill':
      await host.stopDaemon('SIGKILL')
      return 0
    case 'daemon pause':
      await host.signalDaemon('SIGSTOP')
      return 0
    case 'daemon resume':
      await host.signalDaemon('SIGCONT')
      return 0
    case 'engine start':
      await host.startEngine()
      return 0
    case 'engine stop':
      await host.stopEngine('SIGTERM')
      return 0
    case 'engine kill':
      await host.stopEngine('SIGKILL')
      return 0
    case 'power off':
      await host.powerOff()
      return 0
    case 'power on':
      await host.powerOn()
      return 0
    case 'power pause':
      await host.pause()
      return 0
    case 'power resume':
      await host.resume()
      return 0
    default:
      console.error(usage)
      return 1
  }
}

function interact(words: readonly string[]): Promise<number> {
  const [command = '', ...args] = words
  const child = spawn(command, args, { stdio: 'inherit' })
  return new Promise((done, fail) => {
    child.once('error', fail)
    child.once('exit', (code) => done(code ?? 1))
  })
}

process.exitCode = await runLabCommand(process.argv.slice(2))
