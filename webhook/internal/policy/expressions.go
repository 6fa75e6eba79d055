// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"cmp"
	"fmt"
	"strconv"

	registrationv1 "k8s.io/api/admissionregistration/v1"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/check"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
	"github.com/kubelet-https-guard/kubelet-https-guard/webhook/internal/admit"
)

// The rule is that of the webhook: a problem of the new Secret that the old one does not
// have is refused. All expressions are null-safe, because an expression that fails refuses
// under failurePolicy Fail.
//
// They are indented with spaces, which YAML prints as they are.

const (
	oldAndNew = `[oldObject, object]`

	// renewedFor are the UIDs of the Services for which service-ca would renew the old and
	// the new Secret. The beta annotation of the name has precedence over the alpha one.
	// Of the UID, one of the two annotations is enough.
	renewedFor = `variables.oldAndNew.map(o, o == null || variables.want.managedBy != "` + check.ManagedByServiceCA +
		`" ? [] :
  [o.metadata.?annotations.orValue({})].map(a,
    o.metadata.?ownerReferences.orValue([]).filter(r,
      r.apiVersion == "v1" && r.kind == "Service" && r.uid != ""
      && (variables.want.service == "" || r.name == variables.want.service)
      && r.name == (a[?"service.beta.openshift.io/originating-service-name"].orValue("") != ""
        ? a["service.beta.openshift.io/originating-service-name"]
        : a[?"service.alpha.openshift.io/originating-service-name"].orValue(""))
      && r.uid in [a[?"service.beta.openshift.io/originating-service-uid"].orValue(""),
        a[?"service.alpha.openshift.io/originating-service-uid"].orValue("")]
    ).map(r, r.uid))[0])`

	// attachedTo is the UID of the Service that the Secret must stay with.
	attachedTo = `variables.renewedFor[0].size() > 0 ? variables.renewedFor[0][0] : ""`

	// ownedBefore are the platform's owners of the old Secret. An owner that replaces one
	// of them may not exist, and then the garbage collector deletes the Secret.
	ownedBefore = `oldObject == null ? [] : oldObject.metadata.?ownerReferences.orValue([]).filter(r,
  variables.owners.exists(w, r.kind == w.kind && (w.name == "" || r.name == w.name)
    && (r.apiVersion == w.apiVersion || r.apiVersion.startsWith(w.apiVersion + "/"))))`

	// problems are those of the old and of the new Secret. The text has nothing that was
	// written into the Secret; owner makes the problems of two owners different. An empty
	// value is null or "".
	problems = `[0, 1].map(i, variables.oldAndNew[i] == null ? [] : [variables.oldAndNew[i]].map(o,
  (o.?type.orValue("") == variables.want.type ? []
    : [{"text": "type: the type is not " + variables.want.type + " (` + string(finding.WrongSecretType) + `)"}])
  + ([dyn(""), dyn(null)].exists(v, v == o.?data["tls.crt"].orValue(""))
    ? [{"text": "tls.crt: the certificate is missing or empty (` + string(finding.CertificateMissing) + `)"}] : [])
  + ([dyn(""), dyn(null)].exists(v, v == o.?data["tls.key"].orValue(""))
    ? [{"text": "tls.key: the private key is missing or empty (` + string(finding.KeyMissing) + `)"}] : [])
  + (!o.?immutable.orValue(false) ? []
    : [{"text": "immutable: an immutable Secret cannot be renewed (` + string(finding.RotationDetached) + `)"}])
  + o.metadata.?ownerReferences.orValue([]).filter(r,
    !variables.owners.exists(w, r.kind == w.kind && (w.name == "" || r.name == w.name)
      && (r.apiVersion == w.apiVersion || r.apiVersion.startsWith(w.apiVersion + "/"))
      && (!variables.ownedBefore.exists(b, b.kind == w.kind && (w.name == "" || b.name == w.name))
        || variables.ownedBefore.exists(b, b.kind == w.kind && (w.name == "" || b.name == w.name) && b.uid == r.uid)))
    && !(variables.want.managedBy == "` + check.ManagedByServiceCA + `" && r.apiVersion == "v1" && r.kind == "Service"
      && (variables.want.service == "" || r.name == variables.want.service)
      && (variables.attachedTo == "" || r.uid == variables.attachedTo))
  ).map(r, {"owner": r.kind + " " + r.name + " " + r.uid,
    "text": "metadata.ownerReferences: with another owner, the garbage collector could delete the Secret (` +
		string(finding.RotationDetached) + `)"})
  + (variables.want.managedBy != "` + check.ManagedByServiceCA + `"
    || variables.renewedFor[i].exists(uid, variables.attachedTo == "" || uid == variables.attachedTo) ? []
    : [{"text": "metadata: the owner reference and the originating-service annotations do not name the same Service"
      + (variables.want.service == "" ? "" : " (expected: " + variables.want.service + ")")
      + ", so service-ca would stop renewing the Secret (` + string(finding.RotationDetached) + `)"}])
  )[0])`

	// introduced compares the whole lists first. To compare two long lists item by item
	// exceeds the API server's cost limit, which refuses the request.
	introduced = `variables.problems[0] == variables.problems[1] ? []
: variables.problems[1].filter(w, !(w in variables.problems[0]))`

	// detachedByCollector: the garbage collector only removes owners, or changes what is not
	// checked. After a refusal it would try again forever. With some hundreds of old and new
	// owners, the expression exceeds the API server's cost limit.
	detachedByCollector = `request.operation == "UPDATE"
&& request.userInfo.?username.orValue("") == "` + admit.GarbageCollector + `"
&& object.?type == oldObject.?type
&& object.?data == oldObject.?data
&& object.?immutable == oldObject.?immutable
&& object.metadata.?annotations == oldObject.metadata.?annotations
&& object.metadata.?ownerReferences.orValue([]).all(r, oldObject.metadata.?ownerReferences.orValue([]).exists(o,
  o.apiVersion == r.apiVersion && o.kind == r.kind && o.name == r.name && o.uid == r.uid))`

	mayStore = `variables.introduced.size() == 0 || variables.detachedByCollector`

	// mayDelete does not compare the time in the annotation, because CEL has no clock. The
	// webhook does.
	mayDelete = `request.operation != "DELETE"
|| request.userInfo.?username.orValue("") in ["` + admit.GarbageCollector + `", "` + admit.NamespaceController + `"]
|| oldObject.metadata.?annotations["` + admit.AllowDeleteUntil + `"].orValue("") != ""`
)

// constantVariables are the same for every Secret. Each follows those that it uses.
func constantVariables() []registrationv1.Variable {
	return []registrationv1.Variable{
		{Name: "oldAndNew", Expression: oldAndNew},
		{Name: "renewedFor", Expression: renewedFor},
		{Name: "attachedTo", Expression: attachedTo},
		{Name: "ownedBefore", Expression: ownedBefore},
		{Name: "problems", Expression: problems},
		{Name: "introduced", Expression: introduced},
		{Name: "detachedByCollector", Expression: detachedByCollector},
	}
}

// The texts of refusals, see [admit.Refusal]. If the result of a messageExpression is too
// long, the API server takes the message without expression.
const (
	// Parts of CEL's string constants: each ends the constant, adds a value, and begins
	// another constant.
	verbInside = `" + (variables.want.action == "` + string(
		admit.Deny,
	) + `" ? "` + admit.Refusing + `" : "` + admit.WouldRefuse + `")
+ "`
	operationInside = `" + request.operation + "`
	namespaceInside = `" + request.namespace + "`
	nameInside      = `" + variables.want.name + "`
	typeInside      = `" + variables.want.type + "`
	controlInside   = `" + variables.want.control + "`
	problemsInside  = `"
+ variables.introduced.map(w, w.text).join("; ")
+ "`

	// unnamedControl is for a message without expression.
	unnamedControl = "a control that kubelet-https-guard enforces"

	deleteOperation = string(registrationv1.Delete)
)

// namespaceOf is for a message without expression.
func namespaceOf(secret admit.ProtectedSecret) string { return cmp.Or(secret.Namespace, "<namespace>") }

func refuseStore(secret admit.ProtectedSecret) string {
	problems := fmt.Sprintf("the change causes one or more of %s, %s, %s, %s",
		finding.WrongSecretType, finding.CertificateMissing, finding.KeyMissing, finding.RotationDetached)
	return refusal(admit.Refusing, "CREATE or UPDATE", namespaceOf(secret), secret.Name, problems, unnamedControl) +
		"store certificate and key together, and do not change type, owners, annotations or the field immutable"
}

func refuseStoreExpression() string {
	return `"` + refusal(verbInside, operationInside, namespaceInside, nameInside, problemsInside, controlInside) +
		"store type " + typeInside + " with certificate and key together, and do not change owners, annotations " +
		`or the field immutable"`
}

// proposedTime is an expression for the shell of the user who reads the refusal: the time in
// a zone that is ahead of UTC by [admit.SuggestedAllowance]. The date commands of GNU and BSD
// have different options for a relative time, but the same time zones.
func proposedTime() string {
	return fmt.Sprintf("$(TZ=UTC-0:%02.0f date +%%FT%%TZ)", admit.SuggestedAllowance.Minutes())
}

func refuseDelete(secret admit.ProtectedSecret) string {
	at := namespaceOf(secret)
	return refusal(admit.Refusing, deleteOperation, at, secret.Name, admit.DeleteProblem, unnamedControl) +
		admit.DeleteRemedy(admit.Renewal(""), proposedTime()) // the same text for every manager
}

func refuseDeleteExpression() string {
	return `"` + refusal(verbInside, deleteOperation, namespaceInside, nameInside, admit.DeleteProblem, controlInside) +
		admit.DeleteRemedy(renewalInside(), proposedTime()) + `"`
}

// renewalInside says how to renew the Secret, by its manager.
func renewalInside() string {
	choice := strconv.Quote(admit.Renewal(""))
	for _, manager := range []string{check.ManagedByCertRotation, check.ManagedByServiceCA} {
		choice = fmt.Sprintf("variables.want.managedBy == %q ? %q : %s", manager, admit.Renewal(manager), choice)
	}
	return "\"\n+ (" + choice + ")\n+ \""
}

func refusal(verb, operation, namespace, name, problems, control string) string {
	return admit.Refusal(verb, operation, "Secret "+namespace+"/"+name, problems, control, Marker)
}

// controlOf names the control that requires the Secret.
func controlOf(secret admit.ProtectedSecret) string {
	return admit.ControlOf(secret.Family().Requires(finding.Exists))
}
