import type { Session } from './compose-session.ts'

/** The builder's output, each line with its service's name. */
export function outputOf(session: Session): (service: string, text: string) => void {
  const restByService = new Map<string, string>()
  return (service, text) => {
    const lines = `${restByService.get(service) ?? ''}${text}`.split('\n')
    restByService.set(service, lines.pop() ?? '')
    for (const line of lines) if (line !== '') session.view.say(`${service}: ${line}`)
  }
}
