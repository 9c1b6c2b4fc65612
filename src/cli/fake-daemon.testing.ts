import { createServer, type IncomingMessage } from 'node:http'

export interface RecordedCall {
  readonly method: string
  /** Without the version. */
  readonly path: string
  readonly query: Readonly<Record<string, string>>
  readonly body: unknown
}

/** Answers a call, or leaves it to the defaults with `undefined`. */
export type Answer = (
  call: RecordedCall,
) => { readonly status?: number; readonly json: unknown } | undefined

export interface FakeDaemon {
  readonly path: string
  readonly calls: readonly RecordedCall[]
  close(): Promise<void>
}

/** A manager on a unix socket that takes everything, remembers it, and holds nothing. */
export async function openFakeDaemon(
  path: string,
  answer: Answer = () => undefined,
): Promise<FakeDaemon> {
  const calls: RecordedCall[] = []
  const server = createServer((request, response) => {
    const parts: Buffer[] = []
    request.on('data', (part: Buffer) => parts.push(part))
    request.on('end', () => {
      const call = recorded(request, Buffer.concat(parts).toString())
      calls.push(call)
      response.setHeader('Api-Version', '1.50')
      response.setHeader('Ostype', 'linux')
      const { status = 200, json } = answer(call) ?? defaultAnswer(call)
      if (call.path === '/events') {
        response.flushHeaders()
        return // Stays open, and silent.
      }
      response.writeHead(status, { 'Content-Type': 'application/json' })
      response.end(json === undefined ? '' : `${JSON.stringify(json)}\n`)
    })
  })
  await new Promise<void>((resolve) => server.listen(path, resolve))
  return {
    path,
    calls,
    close: () =>
      new Promise((resolve) => {
        server.closeAllConnections()
        server.close(() => resolve())
      }),
  }
}

function recorded(request: IncomingMessage, text: string): RecordedCall {
  const url = new URL(request.url ?? '/', 'http://fake')
  const body: unknown = text === '' ? undefined : JSON.parse(text)
  return {
    method: request.method ?? '',
    path: url.pathname.replace(/^\/v1\.\d+(?=\/)/, ''),
    query: Object.fromEntries(url.searchParams),
    body,
  }
}

function defaultAnswer({ method, path, query }: RecordedCall): {
  status?: number
  json: unknown
} {
  if (path === '/_ping') return { json: 'OK' }
  if (path === '/info')
    return { json: { Swarm: { LocalNodeState: 'active', ControlAvailable: true } } }
  if (path.endsWith('/create')) return { status: 201, json: { ID: 'newid', Id: 'newid' } }
  if (path.endsWith('/update')) return { json: {} }
  if (method === 'DELETE') return { status: 204, json: undefined }
  if ((path === '/secrets' || path === '/configs') && query['filters']) {
    const filters: { name?: Record<string, boolean> } = JSON.parse(query['filters'])
    return {
      json: Object.keys(filters.name ?? {}).map((name) => ({
        ID: `id-${name}`,
        Spec: { Name: name },
      })),
    }
  }
  if (/^\/(services|networks|nodes|tasks|secrets|configs)$/.test(path)) return { json: [] }
  if (path.startsWith('/networks/')) {
    return { json: { Id: 'netid', Name: path.slice('/networks/'.length), Scope: 'swarm' } }
  }
  return { status: 404, json: { message: `${path.split('/').at(-1)} not found` } }
}
