import { IncomingMessage } from 'node:http'

/** The request again, with a body that has been read from it (or another one). */
export function replayed(request: IncomingMessage, body: Buffer | undefined): IncomingMessage {
  const bytes = body ?? Buffer.alloc(0)
  const copy = new IncomingMessage(request.socket)
  copy.method = request.method
  copy.url = request.url
  copy.httpVersion = request.httpVersion
  copy.httpVersionMajor = request.httpVersionMajor
  copy.httpVersionMinor = request.httpVersionMinor
  const length = String(bytes.length)
  copy.headers = { ...request.headers, 'content-length': length }
  delete copy.headers['transfer-encoding']
  const raw = request.rawHeaders
  for (let i = 0; i + 1 < raw.length; i += 2) {
    const [name = '', value = ''] = [raw[i], raw[i + 1]]
    const lower = name.toLowerCase()
    if (lower === 'content-length' || lower === 'transfer-encoding') continue
    copy.rawHeaders.push(name, value)
  }
  copy.rawHeaders.push('Content-Length', length)
  copy.complete = true
  copy.push(bytes)
  copy.push(null)
  return copy
}
