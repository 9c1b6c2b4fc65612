import { chmod, mkdir, rm } from 'node:fs/promises'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { createServer, type Server } from 'node:net'
import { join } from 'node:path'
import type { Duplex } from 'node:stream'
import {
  type CallRecord,
  type ContainerCall,
  callerOf,
  containerCallOf,
  createEngineProxy,
  type EngineProxy,
  nameCaller,
  recordOf,
  refuseCall,
} from '../api/proxy/index.ts'
import { type Log, messageOf } from '../base/index.ts'
import { bridge, type ClusterPort } from '../cluster/index.ts'
import { idFrom, type NodeId, type Task, type TaskId } from '../model/index.ts'
import type { View } from '../store/index.ts'

/** Commands in containers of other nodes (`docker exec`) whose place is remembered. */
const execsMax = 10_000
/** Bytes of an engine's answer that are looked at for the id of such a command. */
const answerBytesMax = 4_096
/** Characters of a container's id that stand for it, as `docker ps` shows them. */
const shortIdLength = 12

export interface NodeEnginesOptions {
  readonly local: EngineProxy
  /** Where sockets to the engines of other nodes are made, for this process alone. */
  readonly runDir: string
  /** The cluster as this manager sees it; undefined on a worker, and in no cluster. */
  readonly cluster: () =>
    | { readonly view: View; readonly nodeId: NodeId; readonly port: ClusterPort | undefined }
    | undefined
  readonly log: Log
}

/**
 * Engine calls that name a task's container on another node are passed to that node's engine; all others to the local
 * one. `docker exec`, `logs`, `inspect`, `cp`, `top` and `stats` on a manager thus find every task's container.
 */
export function openNodeEngines(options: NodeEnginesOptions): EngineProxy {
  return new NodeEngines(options)
}

interface Place {
  readonly nodeId: NodeId
  readonly taskId: TaskId | undefined
  readonly isElsewhere: boolean
}

interface Route {
  readonly server: Server
  readonly proxy: EngineProxy
}

class NodeEngines implements EngineProxy {
  readonly #options: NodeEnginesOptions
  readonly #folder: string
  readonly #routes = new Map<NodeId, Promise<Route>>()
  /** Node by the id of a command there; oldest first. */
  readonly #nodeByExec = new Map<string, NodeId>()

  constructor(options: NodeEnginesOptions) {
    this.#options = options
    this.#folder = join(options.runDir, 'nodes')
  }

  readonly handle = (request: IncomingMessage, response: ServerResponse): void => {
    const call = containerCallOf(request)
    const place = call && this.#placeOf(call)
    if (!call || !place) {
      this.#options.local.handle(request, response)
      return
    }
    const by = callerOf(request)
    recordOf(call, request).then(
      ({ record, request: recorded }) => {
        if (record) this.#record(record, place, by)
        if (!place.isElsewhere) {
          this.#options.local.handle(recorded, response)
          return
        }
        if (call.about === 'container' && call.verb === 'exec')
          this.#learnExec(response, place.nodeId)
        this.#name(recorded, by)
        this.#with(place.nodeId, (proxy) => proxy.handle(recorded, response))
      },
      (error: unknown) => refuseCall(response, 413, messageOf(error)),
    )
  }

  readonly checkContinue = (request: IncomingMessage, response: ServerResponse): void => {
    const call = containerCallOf(request)
    const place = call && this.#placeOf(call)
    if (!call || !place) {
      this.#options.local.checkContinue(request, response)
      return
    }
    if (call.verb === 'exec') {
      // Its body is read here.
      response.writeContinue()
      this.handle(request, response)
      return
    }
    const by = callerOf(request)
    void recordOf(call, request).then(({ record }) => {
      if (record) this.#record(record, place, by)
      if (!place.isElsewhere) {
        this.#options.local.checkContinue(request, response)
        return
      }
      this.#name(request, by)
      this.#with(place.nodeId, (proxy) => proxy.checkContinue(request, response))
    })
  }

  readonly upgrade = (request: IncomingMessage, socket: Duplex, head: Buffer): void => {
    const call = containerCallOf(request)
    const place = call && this.#placeOf(call)
    if (!call || !place) {
      this.#options.local.upgrade(request, socket, head)
      return
    }
    const by = callerOf(request)
    void recordOf(call, request).then(({ record }) => {
      if (record) this.#record(record, place, by)
      if (!place.isElsewhere) {
        this.#options.local.upgrade(request, socket, head)
        return
      }
      this.#name(request, by)
      this.#with(place.nodeId, (proxy) => proxy.upgrade(request, socket, head))
    })
  }

  readonly close = (): void => {
    this.#options.local.close()
    for (const opening of this.#routes.values()) {
      opening.then(
        ({ server, proxy }) => {
          proxy.close()
          server.close()
        },
        () => {},
      )
    }
  }

  #with(nodeId: NodeId, use: (proxy: EngineProxy) => void): void {
    this.#route(nodeId).then(
      ({ proxy }) => use(proxy),
      (error: unknown) => {
        this.#routes.delete(nodeId)
        this.#options.log.error('no way to the engine of a node could be made', {
          nodeId,
          error: messageOf(error),
        })
        // The local engine says that there is no such container.
        use(this.#options.local)
      },
    )
  }

  /** Where the task is whose container or command the call names. Undefined: it names none, or there is no cluster. */
  #placeOf({ about, name }: ContainerCall): Place | undefined {
    const cluster = this.#options.cluster()
    if (!cluster) return undefined
    if (about === 'command') {
      const nodeId = this.#nodeByExec.get(name)
      return nodeId === undefined ? undefined : { nodeId, taskId: undefined, isElsewhere: true }
    }
    const task = taskOfContainer(cluster.view, name)
    if (task?.nodeId === undefined) return undefined
    const { id: taskId, nodeId } = task
    return { nodeId, taskId, isElsewhere: nodeId !== cluster.nodeId }
  }

  #record(record: CallRecord, { nodeId, taskId }: Place, by: string): void {
    this.#options.log.info('a call into a task', { ...record, taskId, nodeId, by })
  }

  /** So that the node can record who called, and through which manager. */
  #name(request: IncomingMessage, by: string): void {
    nameCaller(request, `${by}, through manager ${this.#options.cluster()?.nodeId}`)
  }

  /** Remembers where the command runs whose id the engine answers with. */
  #learnExec(response: ServerResponse, nodeId: NodeId): void {
    const parts: Buffer[] = []
    let bytes = 0
    const write = response.write.bind(response)
    const look = (chunk: unknown) => {
      if (!(chunk instanceof Uint8Array) || bytes > answerBytesMax) return
      parts.push(Buffer.from(chunk))
      bytes += chunk.length
      // Before the caller can read it, and ask for more.
      const id = /"Id"\s*:\s*"([0-9a-f]{64})"/.exec(Buffer.concat(parts).toString())?.[1]
      if (id === undefined) return
      this.#nodeByExec.set(id, nodeId)
      for (const oldest of this.#nodeByExec.keys()) {
        if (this.#nodeByExec.size <= execsMax) break
        this.#nodeByExec.delete(oldest)
      }
    }
    response.write = (chunk: unknown, ...rest: unknown[]) => {
      look(chunk)
      return Reflect.apply(write, response, [chunk, ...rest])
    }
  }

  #route(nodeId: NodeId): Promise<Route> {
    const known = this.#routes.get(nodeId)
    if (known) return known
    const opening = this.#open(nodeId)
    this.#routes.set(nodeId, opening)
    return opening
  }

  /** A socket of this process whose other end is that node's engine. */
  async #open(nodeId: NodeId): Promise<Route> {
    const { log } = this.#options
    const path = join(this.#folder, `${nodeId}.sock`)
    await mkdir(this.#folder, { recursive: true, mode: 0o700 })
    await chmod(this.#folder, 0o700)
    await rm(path, { force: true })
    const server = createServer({ allowHalfOpen: true, pauseOnConnect: true }, (socket) => {
      const port = this.#options.cluster()?.port
      socket.on('error', () => {}) // Told by what waits on it.
      if (!port) {
        socket.destroy()
        return
      }
      const gone = new AbortController()
      socket.once('close', () => gone.abort())
      port
        .ask(nodeId, { kind: 'engine' }, gone.signal)
        .then(({ stream, over }) => {
          over.addEventListener('abort', () => socket.destroy(), {
            once: true,
            signal: gone.signal,
          })
          return bridge(stream, socket)
        })
        .catch((error: unknown) => {
          log.debug('a call to the engine of another node broke', {
            nodeId,
            error: messageOf(error),
          })
          socket.destroy()
        })
    })
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject)
      server.listen(path, resolve)
    })
    await chmod(path, 0o600)
    server.unref()
    return { server, proxy: createEngineProxy({ engineAddress: `unix://${path}`, log }) }
  }
}

/** The task whose container goes by this name or id; undefined when it is none of a task. */
function taskOfContainer(view: View, name: string): Task | undefined {
  const taskId = /(?:^|\.)([0-9a-z]{25})$/.exec(name)?.[1]
  const named = taskId === undefined ? undefined : view.get('task', idFrom<'task'>(taskId))
  if (named) return named
  if (name.length < shortIdLength || !/^[0-9a-f]+$/.test(name)) return undefined
  for (const task of view.list('task')) {
    if (task.status.container?.containerId.startsWith(name)) return task
  }
  return undefined
}
