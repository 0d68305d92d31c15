// What Edge.js asks for a function: the class that EDGE_CS_NATIVE names. It compiles nothing: the runtime has had the
// source compiled, or knows the assembly from before, and hands its bytes over.

using System;
using System.Collections.Generic;
using System.IO;
using System.Reflection;
using System.Threading.Tasks;
using Sandpost;

public class EdgeCompiler
{
    // By the runtime's key; only its thread comes here.
    static readonly Dictionary<string, Assembly> Loaded = new Dictionary<string, Assembly>();
    static readonly List<string> References = new List<string>();
    static bool started;
    static Func<byte[], byte[], byte[]> portable;

    // `sandpost` in what Edge.js passes on: key, assembly (bytes, or none for one that is loaded), file, references; the first
    // time log and ends, too.
    // What goes wrong is told by the first call: Edge.js itself would walk through everything that hangs on an exception.
    public Func<object, Task<object>> CompileFunc(IDictionary<string, object> parameters)
    {
        var own = (IDictionary<string, object>)parameters["sandpost"];
        if (!started) Start((bool)own["log"], (Func<object, Task<object>>)own["ends"]);
        try
        {
            foreach (var reference in (object[])own["references"]) References.Add((string)reference);
            var entry = EntryOf(AssemblyOf(own), (string)parameters["typeName"], (string)parameters["methodName"]);
            return new Exported(entry).Call;
        }
        catch (Exception error)
        {
            return _ => Task.FromResult<object>(Failure.Of(error));
        }
    }

    static void Start(bool log, Func<object, Task<object>> ends)
    {
        started = true;
        Log.Start(log);
        Ends.Watch(ends);
        AppDomain.CurrentDomain.AssemblyResolve += Resolve;
    }

    static Assembly AssemblyOf(IDictionary<string, object> own)
    {
        object found;
        if (own.TryGetValue("file", out found)) return Assembly.LoadFrom((string)found);
        var key = (string)own["key"];
        Assembly assembly;
        if (!Loaded.TryGetValue(key, out assembly)) Loaded[key] = assembly = Load((byte[])own["assembly"]);
        return assembly;
    }

    // From the bytes of an assembly, of what a debugger would know of it, and of the length of that.
    static Assembly Load(byte[] bytes)
    {
        var end = bytes.Length - 4;
        var length = end < 0 ? 0 : BitConverter.ToInt32(bytes, end);
        if (length <= 0 || length > end) return Assembly.Load(bytes);
        var assembly = new byte[end - length];
        var symbols = new byte[length];
        Buffer.BlockCopy(bytes, 0, assembly, 0, assembly.Length);
        Buffer.BlockCopy(bytes, assembly.Length, symbols, 0, length);
        if (Type.GetType("Mono.Runtime") == null) symbols = Portable(assembly, symbols);
        return symbols == null ? Assembly.Load(assembly) : Assembly.Load(assembly, symbols);
    }

    // The symbols as CoreCLR wants them, by the assembly beside this one that is there for it.
    static byte[] Portable(byte[] assembly, byte[] symbols)
    {
        if (portable == null)
        {
            var folder = Path.GetDirectoryName(typeof(EdgeCompiler).Assembly.Location);
            var method = Assembly.LoadFrom(Path.Combine(folder, "sandpost-symbols.dll")).GetType("Symbols").GetMethod("Portable");
            portable = (Func<byte[], byte[], byte[]>)Delegate.CreateDelegate(typeof(Func<byte[], byte[], byte[]>), method);
        }
        return portable(assembly, symbols);
    }

    // An assembly that came as bytes has no folder where its references could lie.
    static Assembly Resolve(object sender, ResolveEventArgs wanted)
    {
        var name = new AssemblyName(wanted.Name).Name + ".dll";
        foreach (var path in References)
        {
            if (Path.GetFileName(path) == name && File.Exists(path)) return Assembly.LoadFrom(path);
        }
        return null;
    }

    static Func<object, Task<object>> EntryOf(Assembly assembly, string typeName, string methodName)
    {
        var type = assembly.GetType(typeName);
        if (type == null) throw new TypeLoadException("The source has no class `" + typeName + "`");
        var method = type.GetMethod(methodName, BindingFlags.Instance | BindingFlags.Public);
        if (method == null)
        {
            throw new MissingMethodException("The class `" + typeName + "` has no public method `" + methodName + "` of an instance");
        }
        var parameters = method.GetParameters();
        if (method.ReturnType != typeof(Task<object>) || parameters.Length != 1)
        {
            throw new MissingMethodException("`" + typeName + "." + methodName + "` must be Task<object> " + methodName + "(object input)");
        }
        var instance = Activator.CreateInstance(type);
        if (parameters[0].ParameterType == typeof(object))
        {
            return (Func<object, Task<object>>)Delegate.CreateDelegate(typeof(Func<object, Task<object>>), instance, method);
        }
        return input => (Task<object>)method.Invoke(instance, new[] { input });
    }
}
