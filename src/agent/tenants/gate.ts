import { ControlError, isForTenants, type CallContext, type Handlers } from "../../control/index.js";
import { refusalFor } from "./refusals.js";
import { TENANT_RULES, type RuledMethod, type TenantCall, type TenantServices } from "./rules.js";

type AnyHandler = (params: never, context: CallContext) => Promise<object>;

/**
 * The handlers of an agent's commands for everybody: who runs the host has them carried out as they are, and the holder of a tenant's certificate by the method's rule (`TENANT_RULES`). A method without one is refused, whatever let it
 * through before.
 */
export function forTenants(handlers: Handlers<"client">, services: TenantServices): Handlers<"client"> {
  const gated = Object.entries(handlers as unknown as Record<string, AnyHandler>).map(
    ([method, handler]) => [method, gate(method as keyof Handlers<"client">, handler, services)] as const,
  );
  return Object.fromEntries(gated) as unknown as Handlers<"client">;
}

function gate(
  method: keyof Handlers<"client">,
  handler: AnyHandler,
  services: TenantServices,
): (params: never, context: CallContext) => Promise<object> {
  return async (params, context) => {
    const { tenant, name } = context.session.identity;
    if (tenant === undefined) return handler(params, context);
    if (!isForTenants(method))
      throw new ControlError(
        "forbidden",
        `${method} is not for tenants; ${name} belongs to the tenant ${tenant}`,
      );
    const rule = TENANT_RULES[method] as unknown as (call: unknown) => Promise<object>;
    const carryOut = (own: never): Promise<object> => handler(own, context);
    const call = { tenant, params, services, context, carryOut } as unknown as TenantCall<RuledMethod>;
    try {
      return await rule(call);
    } catch (error) {
      throw refusalFor(error);
    }
  };
}
